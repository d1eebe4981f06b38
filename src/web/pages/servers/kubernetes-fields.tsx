import { Textarea, TextInput } from '@mantine/core';
import type { ReactNode } from 'react';
import { serversTexts } from '../../texts/servers.ts';
import type { TypeFieldsProps } from './ssh-fields.tsx';

const texts = serversTexts.form.kubernetes;

export function KubernetesFields({ form, server }: TypeFieldsProps): ReactNode {
  return (
    <>
      <Textarea
        label={texts.kubeconfig}
        description={server === undefined ? texts.kubeconfigHint : serversTexts.form.keepSecret}
        autosize
        minRows={4}
        maxRows={12}
        spellCheck={false}
        autoComplete="off"
        {...form.getInputProps('kubeconfig')}
      />
      <TextInput
        label={texts.namespace}
        description={texts.namespaceHint}
        {...form.getInputProps('namespace')}
      />
      <TextInput label={texts.image} {...form.getInputProps('image')} />
    </>
  );
}
