import { Button, Modal, Text } from '@mantine/core';
import type { ReactNode } from 'react';
import { shellTexts } from '../texts/shell.ts';
import { loginUrl } from './login-url.ts';

const texts = shellTexts.sessionEnded;

/** Leads back to the same address after signing in. Drafts are kept by the forms themselves (drafts.ts). */
export function SessionEnded(): ReactNode {
  return (
    <Modal
      opened
      withCloseButton={false}
      closeOnEscape={false}
      closeOnClickOutside={false}
      onClose={() => undefined}
      title={texts.title}
    >
      <Text mb="md">{texts.text}</Text>
      <Button component="a" href={loginUrl()} data-autofocus>
        {texts.signIn}
      </Button>
    </Modal>
  );
}
