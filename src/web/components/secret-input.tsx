import { PasswordInput, type PasswordInputProps } from '@mantine/core';
import type { ReactNode } from 'react';
import { shellTexts } from '../texts/shell.ts';

/** Input of a secret that is no password of this site: browsers and password managers must not keep it. */
export function SecretInput(props: PasswordInputProps): ReactNode {
  return (
    <PasswordInput
      autoComplete="off"
      autoCapitalize="off"
      autoCorrect="off"
      spellCheck={false}
      data-1p-ignore
      data-lpignore="true"
      data-bwignore="true"
      {...props}
      visibilityToggleButtonProps={{
        'aria-label': shellTexts.toggleSecret,
        tabIndex: 0,
        ...props.visibilityToggleButtonProps,
      }}
    />
  );
}
