import { Button, Checkbox, Group, Modal, Select, Textarea, TextInput } from '@mantine/core';
import type { UseFormReturnType } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { keysQuery } from '../../api/keys.ts';
import { useCreateToken, type TokenScope } from '../../api/tokens.ts';
import { ErrorNotice } from '../../components/error-notice.tsx';
import { useDraftForm } from '../../drafts.ts';
import { shellTexts } from '../../texts/shell.ts';
import { tokensTexts } from '../../texts/tokens.ts';
import { CreatedToken } from './created-token.tsx';
import classes from './tokens.module.css';

const texts = tokensTexts.form;
const DAY_MS = 86_400_000;
const SCOPES = Object.keys(tokensTexts.scopes) as TokenScope[];

interface TokenValues {
  name: string;
  scopes: TokenScope[];
  /** Days, or `never`. */
  expiry: keyof typeof texts.expiries;
  /** One pattern a line. */
  models: string;
  keyIds: string[];
}

/** Asks for the limits of a new token, then shows the token once. */
export function CreateTokenDialog({ onClose }: { onClose: () => void }): ReactNode {
  const create = useCreateToken();
  const { form, discardDraft } = useDraftForm<TokenValues>({
    draftName: 'token',
    toDraft: (values) => values,
    initialValues: { name: '', scopes: ['chat'], expiry: '90', models: '', keyIds: [] },
    validate: { scopes: (scopes) => (scopes.length === 0 ? texts.needsScope : null) },
  });
  const close = () => {
    // The response holds the token.
    create.reset();
    onClose();
  };
  const submit = form.onSubmit((values) => {
    create.mutate(toRequest(values), { onSuccess: discardDraft });
  });
  return (
    <Modal
      opened
      onClose={close}
      size="xl"
      // A click beside the dialog must not lose a token that is shown once.
      closeOnClickOutside={create.data === undefined}
      title={create.data === undefined ? texts.title : tokensTexts.created.title}
    >
      {create.data === undefined ? (
        <form onSubmit={submit}>
          <Fields form={form} />
          <ErrorNotice error={create.error} />
          <Group mt="md" gap="xs">
            <Button type="submit" loading={create.isPending}>
              {texts.submit}
            </Button>
            <Button
              variant="default"
              onClick={() => {
                discardDraft();
                close();
              }}
            >
              {shellTexts.cancel}
            </Button>
          </Group>
        </form>
      ) : (
        <CreatedToken created={create.data} onClose={close} />
      )}
    </Modal>
  );
}

function toRequest({ name, scopes, expiry, models, keyIds }: TokenValues) {
  const patterns = models.split(/\s+/).filter((pattern) => pattern !== '');
  return {
    name,
    scopes,
    ...(expiry === 'never'
      ? {}
      : { expires_at: new Date(Date.now() + Number(expiry) * DAY_MS).toISOString() }),
    ...(patterns.length === 0 ? {} : { models: patterns }),
    ...(keyIds.length === 0 ? {} : { key_ids: keyIds }),
  };
}

function Fields({ form }: { form: UseFormReturnType<TokenValues> }): ReactNode {
  return (
    <>
      <TextInput
        label={texts.name}
        description={texts.nameHint}
        required
        withAsterisk={false}
        maxLength={120}
        data-autofocus
        {...form.getInputProps('name')}
      />
      <Checkbox.Group mt="md" label={texts.scopes} {...form.getInputProps('scopes')}>
        {SCOPES.map((scope) => (
          <Checkbox
            key={scope}
            mt="xs"
            value={scope}
            label={tokensTexts.scopes[scope].label}
            description={tokensTexts.scopes[scope].text}
          />
        ))}
      </Checkbox.Group>
      <Select
        mt="md"
        label={texts.expires}
        allowDeselect={false}
        data={Object.entries(texts.expiries).map(([value, label]) => ({ value, label }))}
        {...form.getInputProps('expiry')}
      />
      <details className={classes['more']}>
        <summary>{texts.more}</summary>
        <Textarea
          mt="xs"
          label={texts.models}
          description={texts.modelsHint}
          autosize
          minRows={2}
          {...form.getInputProps('models')}
        />
        <KeyChoice form={form} />
      </details>
    </>
  );
}

function KeyChoice({ form }: { form: UseFormReturnType<TokenValues> }): ReactNode {
  const { data: keys = [] } = useQuery(keysQuery);
  return (
    <Checkbox.Group
      mt="md"
      label={texts.keys}
      description={keys.length === 0 ? texts.noKeys : texts.keysHint}
      {...form.getInputProps('keyIds')}
    >
      {keys.map(({ id, provider_name: provider, label, key_preview: preview }) => (
        <Checkbox key={id} mt="xs" value={id} label={`${provider}: ${label ?? preview}`} />
      ))}
    </Checkbox.Group>
  );
}
