import {
  Button,
  FileButton,
  Group,
  NumberInput,
  SegmentedControl,
  Select,
  Textarea,
  TextInput,
} from '@mantine/core';
import type { UseFormReturnType } from '@mantine/form';
import { useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { ServerView } from '../../../servers/schema.ts';
import { serversQuery, useMakeKeyPair } from '../../api/servers.ts';
import { CopyButton } from '../../components/copy-button.tsx';
import { SecretInput } from '../../components/secret-input.tsx';
import { serversTexts } from '../../texts/servers.ts';
import { parseSshTarget } from './parse-ssh.ts';
import type { ServerValues } from './server-values.ts';
import classes from './servers.module.css';

const texts = serversTexts.form.ssh;

export interface TypeFieldsProps {
  form: UseFormReturnType<ServerValues>;
  /** The stored server, whose secrets are kept where a field is empty. */
  server: ServerView | undefined;
}

export function SshFields({ form, server }: TypeFieldsProps): ReactNode {
  const { method } = form.getValues();
  const { data: servers = [] } = useQuery(serversQuery);
  const jumps = servers.filter(({ id, server_type: type }) => type === 'ssh' && id !== server?.id);
  return (
    <>
      {server === undefined && <PasteField form={form} />}
      <div className={classes['row']}>
        <TextInput label={texts.host} required withAsterisk={false} {...form.getInputProps('host')} />
        <NumberInput label={texts.port} min={1} max={65_535} {...form.getInputProps('port')} />
      </div>
      <TextInput
        label={texts.username}
        required
        withAsterisk={false}
        autoCapitalize="off"
        spellCheck={false}
        {...form.getInputProps('username')}
      />
      <SegmentedControl
        aria-label={texts.method}
        data={(['key', 'password'] as const).map((value) => ({ value, label: texts.methods[value] }))}
        {...form.getInputProps('method')}
      />
      {method === 'password' ? (
        <SecretInput
          label={texts.password}
          description={server === undefined ? undefined : serversTexts.form.keepSecret}
          {...form.getInputProps('password')}
        />
      ) : (
        <KeyFields form={form} server={server} />
      )}
      {jumps.length > 0 && (
        <Select
          label={texts.jump}
          allowDeselect={false}
          data={[
            { value: '', label: texts.noJump },
            ...jumps.map(({ id, name }) => ({ value: id, label: name })),
          ]}
          {...form.getInputProps('jump')}
        />
      )}
    </>
  );
}

function PasteField({ form }: Pick<TypeFieldsProps, 'form'>): ReactNode {
  const [text, setText] = useState('');
  const target = parseSshTarget(text);
  const change = (pasted: string) => {
    setText(pasted);
    const found = parseSshTarget(pasted);
    if (found === undefined) return;
    const { unused: _unused, ...fields } = found;
    form.setValues(fields);
  };
  return (
    <Textarea
      label={texts.paste}
      description={texts.pasteHint}
      autosize
      minRows={1}
      spellCheck={false}
      value={text}
      error={
        target !== undefined && target.unused.length > 0 ? texts.unused(target.unused.join(', ')) : undefined
      }
      onChange={(event) => {
        change(event.currentTarget.value);
      }}
    />
  );
}

function KeyFields({ form, server }: TypeFieldsProps): ReactNode {
  const pair = useMakeKeyPair();
  const make = () => {
    pair.mutate(undefined, {
      onSuccess: ({ private_key: privateKey }) => {
        form.setFieldValue('privateKey', privateKey);
      },
    });
  };
  const read = (file: File | null) => {
    if (file !== null)
      void file.text().then((text) => {
        form.setFieldValue('privateKey', text);
      });
  };
  const line = pair.data === undefined ? undefined : toAuthorizedKeysCommand(pair.data.public_key);
  return (
    <>
      <Textarea
        label={texts.privateKey}
        description={server === undefined ? undefined : serversTexts.form.keepSecret}
        autosize
        minRows={2}
        maxRows={8}
        autoComplete="off"
        spellCheck={false}
        classNames={{ input: classes['secret'] ?? '' }}
        {...form.getInputProps('privateKey')}
      />
      <Group gap="xs">
        <FileButton onChange={read}>
          {(props) => (
            <Button {...props} variant="default" size="xs">
              {texts.chooseFile}
            </Button>
          )}
        </FileButton>
        <Button variant="default" size="xs" loading={pair.isPending} onClick={make}>
          {texts.makePair}
        </Button>
      </Group>
      {line !== undefined && (
        <div>
          <p>{texts.publicKey}</p>
          <div className={classes['command']}>
            <code>{line}</code>
            <CopyButton value={line} />
          </div>
        </div>
      )}
      <SecretInput label={texts.passphrase} {...form.getInputProps('passphrase')} />
    </>
  );
}

function toAuthorizedKeysCommand(publicKey: string): string {
  return `mkdir -p -m 700 ~/.ssh && echo '${publicKey.trim()}' >> ~/.ssh/authorized_keys && chmod 600 ~/.ssh/authorized_keys`;
}
