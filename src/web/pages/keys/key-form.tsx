import { Alert, Button, Group, TextInput } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import type { UseFormReturnType } from '@mantine/form';
import { useState, type ClipboardEvent, type ReactNode } from 'react';
import { KeyTested, type KeyView, type ProviderView } from '../../../keys/schema.ts';
import { isApiError } from '../../api/problem.ts';
import { SecretInput } from '../../components/secret-input.tsx';
import { useDraftForm } from '../../drafts.ts';
import { keyStatusTexts, keysTexts } from '../../texts/keys.ts';
import { shellTexts } from '../../texts/shell.ts';
import { cleanPastedKey } from './clean-pasted-key.ts';
import { endOfDay, toDay } from './expiry.ts';
import { useAddKey, type KeyRequest } from '../../api/keys.ts';

const texts = keysTexts.form;
/** The provider could not say whether the key is good, so the user may decide. */
const UNDECIDED = ['unreachable', 'timeout', 'error', 'rate_limited'];

export interface KeyFormProps {
  provider: ProviderView;
  /** The key that is replaced in place. */
  replaced?: KeyView;
  onDone: () => void;
  onCancel: () => void;
}

interface KeyValues {
  key: string;
  label: string;
  endpoint: string;
  /** A day, see expiry.ts. */
  expires: string;
}

/** Adds a key, or replaces one. It is tested before it is stored; a failed test changes neither the form nor what is stored. */
export function KeyForm({ provider, replaced, onDone, onCancel }: KeyFormProps): ReactNode {
  const { form, isRestored, discardDraft } = useDraftForm<KeyValues>({
    draftName: replaced === undefined ? `key:${provider.id}` : `key:${provider.id}:${replaced.id}`,
    toDraft: ({ key: _key, ...rest }) => rest,
    initialValues: {
      key: '',
      label: replaced?.label ?? '',
      endpoint: replaced?.endpoint ?? '',
      expires: toDay(replaced?.expires_at ?? null),
    },
  });
  const add = useAddKey();
  const save = async (validate: boolean) => {
    const { key, label, endpoint, expires } = form.getValues();
    const hasNewExpiry = expires !== toDay(replaced?.expires_at ?? null);
    const body: KeyRequest = {
      provider: provider.id,
      key: cleanPastedKey(key),
      label,
      validate,
      ...(provider.requires_endpoint ? { endpoint } : {}),
      ...(hasNewExpiry ? { expires_at: endOfDay(expires) } : {}),
      ...(replaced === undefined ? {} : { key_id: replaced.id }),
    };
    try {
      await add.mutateAsync(body);
    } catch {
      // Shown in the form.
      return;
    }
    discardDraft();
    notifications.show({ message: replaced === undefined ? texts.saved : texts.replaced });
    onDone();
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void save(true);
      }}
    >
      <h3>
        {replaced === undefined ? texts.addTitle : texts.replaceTitle(replaced.label ?? replaced.key_preview)}
      </h3>
      {isRestored && (
        <Alert mb="sm" color="yellow">
          {texts.restored}
        </Alert>
      )}
      <KeyFields provider={provider} form={form} />
      <Failure error={add.error} />
      <Group mt="md" gap="xs">
        <Button type="submit" loading={add.isPending}>
          {texts.save}
        </Button>
        {isUndecided(add.error) && (
          <Button variant="default" disabled={add.isPending} onClick={() => void save(false)}>
            {texts.saveAnyway}
          </Button>
        )}
        <Button
          variant="default"
          onClick={() => {
            discardDraft();
            onCancel();
          }}
        >
          {shellTexts.cancel}
        </Button>
      </Group>
    </form>
  );
}

function KeyFields(props: { provider: ProviderView; form: UseFormReturnType<KeyValues> }): ReactNode {
  const { provider, form } = props;
  const [isCleaned, setCleaned] = useState(false);
  const { key_format: format } = provider;
  const paste = (event: ClipboardEvent) => {
    const pasted = event.clipboardData.getData('text');
    const key = cleanPastedKey(pasted);
    setCleaned(key !== pasted);
    if (key === pasted) return;
    event.preventDefault();
    form.setFieldValue('key', key);
  };
  const hint = isCleaned ? texts.cleaned : format === null ? undefined : keysTexts.keyFormat(format);
  return (
    <>
      <SecretInput
        label={provider.requires_key ? texts.key : texts.keyOptional}
        description={hint}
        required={provider.requires_key}
        withAsterisk={false}
        data-autofocus
        {...form.getInputProps('key')}
        onPaste={paste}
      />
      <TextInput
        mt="sm"
        label={texts.label}
        description={texts.labelHint}
        maxLength={120}
        {...form.getInputProps('label')}
      />
      {provider.requires_endpoint && (
        <TextInput
          mt="sm"
          type="url"
          label={texts.endpoint}
          description={texts.endpointHint}
          maxLength={256}
          {...form.getInputProps('endpoint')}
        />
      )}
      <TextInput
        mt="sm"
        type="date"
        label={texts.expires}
        description={texts.expiresHint}
        {...form.getInputProps('expires')}
      />
    </>
  );
}

function findTest(error: unknown): KeyTested | undefined {
  if (!isApiError(error, 'key_test_failed')) return undefined;
  return KeyTested.safeParse(error.members['test']).data;
}

function isUndecided(error: unknown): boolean {
  return UNDECIDED.includes(findTest(error)?.status ?? '');
}

/** Why the key was not stored, each reason in its own words. */
function Failure({ error }: { error: Error | null }): ReactNode {
  if (error === null) return null;
  const test = findTest(error);
  const status = test === undefined ? undefined : keyStatusTexts[test.status];
  const duplicate = isApiError(error, 'duplicate_key') ? error.members['existing_label'] : undefined;
  return (
    <Alert
      mt="sm"
      color="red"
      role="alert"
      title={status === undefined ? undefined : texts.failedTitle(status.label)}
    >
      {typeof duplicate === 'string' ? texts.duplicate(duplicate) : error.message}
      {isApiError(error) &&
        error.fieldErrors.map(({ path, message }) => <p key={path}>{`${path} ${message}`}</p>)}
      {status?.next !== undefined && <p>{status.next}</p>}
    </Alert>
  );
}
