import { Button, Group, TextInput } from '@mantine/core';
import { useForm } from '@mantine/form';
import type { ReactNode } from 'react';
import type { KeyView } from '../../../keys/schema.ts';
import { ErrorNotice } from '../../components/error-notice.tsx';
import { keysTexts as texts } from '../../texts/keys.ts';
import { shellTexts } from '../../texts/shell.ts';
import { endOfDay, toDay } from './expiry.ts';
import { useUpdateKey } from '../../api/keys.ts';

/** Changes the label and the expiry of a stored key. */
export function EditKeyForm({ stored, onDone }: { stored: KeyView; onDone: () => void }): ReactNode {
  const form = useForm({ initialValues: { label: stored.label ?? '', expires: toDay(stored.expires_at) } });
  const update = useUpdateKey();
  const save = form.onSubmit(({ label, expires }) => {
    const hasNewExpiry = expires !== toDay(stored.expires_at);
    update.mutate(
      { key: stored, change: { label, ...(hasNewExpiry ? { expires_at: endOfDay(expires) } : {}) } },
      { onSuccess: onDone },
    );
  });
  return (
    <form onSubmit={save}>
      <TextInput
        mt="sm"
        label={texts.form.label}
        maxLength={120}
        data-autofocus
        {...form.getInputProps('label')}
      />
      <TextInput
        mt="sm"
        type="date"
        label={texts.form.expires}
        description={texts.form.expiresHint}
        {...form.getInputProps('expires')}
      />
      <ErrorNotice error={update.error} />
      <Group mt="md" gap="xs">
        <Button type="submit" loading={update.isPending}>
          {texts.save}
        </Button>
        <Button variant="default" onClick={onDone}>
          {shellTexts.cancel}
        </Button>
      </Group>
    </form>
  );
}
