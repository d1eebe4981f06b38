import { Alert, Button, Checkbox, Group, TextInput } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { ServerView } from '../../../servers/schema.ts';
import { isApiError } from '../../api/problem.ts';
import { serverQuery, useAddServer, useUpdateServer } from '../../api/servers.ts';
import { ErrorNotice } from '../../components/error-notice.tsx';
import { useDraftForm } from '../../drafts.ts';
import { serversTexts, type ServerTypeId } from '../../texts/servers.ts';
import { shellTexts } from '../../texts/shell.ts';
import { DockerFields } from './docker-fields.tsx';
import { KubernetesFields } from './kubernetes-fields.tsx';
import {
  listChangedMembers,
  toChange,
  toNewServer,
  toValues,
  withoutSecrets,
  type ServerValues,
} from './server-values.ts';
import { SshFields, type TypeFieldsProps } from './ssh-fields.tsx';
import classes from './servers.module.css';

const texts = serversTexts.form;

export interface ServerFormProps {
  /** The server that is changed; undefined adds one of `type`. */
  server?: ServerView;
  type?: ServerTypeId;
  onDone: (saved: ServerView) => void;
  onCancel: () => void;
}

/** Adds a server, or changes one. A failed save clears nothing that is typed. */
export function ServerForm({ server, type = 'ssh', onDone, onCancel }: ServerFormProps): ReactNode {
  // The values and the version that the change is based on, also when another tab changes the server.
  const [base, setBase] = useState(server);
  const { form, discardDraft } = useDraftForm<ServerValues>({
    draftName: server === undefined ? `server:new:${type}` : `server:${server.id}`,
    toDraft: withoutSecrets,
    initialValues: toValues(server, type),
  });
  const add = useAddServer();
  const update = useUpdateServer(server?.id ?? '');
  const failure = add.error ?? update.error;
  const submit = form.onSubmit((values) => {
    const onSuccess = (saved: ServerView) => {
      discardDraft();
      form.reset();
      onDone(saved);
    };
    const onError = (error: Error) => {
      if (isApiError(error)) form.setErrors(toFormErrors(error.fieldErrors));
    };
    if (base === undefined) add.mutate(toNewServer(values), { onSuccess, onError });
    else update.mutate({ version: base.version, change: toChange(values) }, { onSuccess, onError });
  });
  return (
    <form className={classes['form']} onSubmit={submit}>
      <TextInput
        label={texts.name}
        required
        withAsterisk={false}
        maxLength={255}
        data-autofocus
        {...form.getInputProps('name')}
      />
      <TypeFields form={form} server={base} />
      <TextInput
        label={texts.setup}
        description={base === undefined ? texts.setupHint : texts.keepSecret}
        autoComplete="off"
        spellCheck={false}
        {...form.getInputProps('setup')}
      />
      <TextInput
        label={texts.workspace}
        description={texts.workspaceHint}
        {...form.getInputProps('workspace')}
      />
      <Checkbox label={texts.isDefault} {...form.getInputProps('isDefault', { type: 'checkbox' })} />
      {base !== undefined && isApiError(failure, 'version_mismatch') ? (
        <Conflict
          base={base}
          onReload={(current) => {
            setBase(current);
            form.setValues(toValues(current, type));
            update.reset();
          }}
        />
      ) : (
        <ErrorNotice error={failure} />
      )}
      <Group gap="xs">
        <Button type="submit" loading={add.isPending || update.isPending}>
          {base === undefined ? texts.saveAndTest : texts.save}
        </Button>
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

function TypeFields({ form, server }: TypeFieldsProps): ReactNode {
  switch (form.getValues().type) {
    case 'ssh':
      return <SshFields form={form} server={server} />;
    case 'docker':
      return <DockerFields form={form} server={server} />;
    case 'kubernetes':
      return <KubernetesFields form={form} server={server} />;
    case 'local':
      return <p>{texts.local.text}</p>;
  }
}

const FIELD_OF_MEMBER: Record<string, keyof ServerValues> = {
  name: 'name',
  workspace_path: 'workspace',
  'connection_config.host': 'host',
  'connection_config.port': 'port',
  'connection_config.username': 'username',
  'connection_config.password': 'password',
  'connection_config.private_key': 'privateKey',
  'connection_config.passphrase': 'passphrase',
  'connection_config.jump': 'jump',
  'connection_config.image': 'image',
  'connection_config.ca': 'ca',
  'connection_config.client_cert': 'cert',
  'connection_config.client_key': 'clientKey',
  'connection_config.kubeconfig': 'kubeconfig',
  'connection_config.namespace': 'namespace',
  'connection_config.setup': 'setup',
};

function toFormErrors(errors: readonly { path: string; message: string }[]): Record<string, string> {
  return Object.fromEntries(errors.map(({ path, message }) => [FIELD_OF_MEMBER[path] ?? path, message]));
}

/** The server was changed since this form was opened: says what, and offers the current values. */
function Conflict(props: { base: ServerView; onReload: (current: ServerView) => void }): ReactNode {
  const { base, onReload } = props;
  const client = useQueryClient();
  const current = client.getQueryData(serverQuery(base.id).queryKey);
  const changed = current === undefined ? [] : listChangedMembers(base, current);
  return (
    <Alert color="red" role="alert" title={serversTexts.conflict.title}>
      <p>
        {serversTexts.conflict.text(
          changed.length === 0 ? serversTexts.conflict.nothing : changed.join(', '),
        )}
      </p>
      <Button
        variant="default"
        onClick={() => {
          void client.query({ ...serverQuery(base.id), staleTime: 0 }).then(onReload);
        }}
      >
        {serversTexts.conflict.reload}
      </Button>
    </Alert>
  );
}
