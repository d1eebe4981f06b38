import { Button } from '@mantine/core';
import type { ReactNode } from 'react';
import type { ServerView } from '../../../servers/schema.ts';
import { useConfirmHostKey } from '../../api/servers.ts';
import { CopyButton } from '../../components/copy-button.tsx';
import { ErrorNotice } from '../../components/error-notice.tsx';
import { serversTexts } from '../../texts/servers.ts';
import classes from './servers.module.css';

const texts = serversTexts.hostKey;

export interface HostKeyNoticeProps {
  server: ServerView;
  onConfirmed: () => void;
}

/** Asks for the confirmation of a host key that is new or has changed. Until then the host receives no credential. */
export function HostKeyNotice({ server, onConfirmed }: HostKeyNoticeProps): ReactNode {
  const confirm = useConfirmHostKey(server.id);
  const shown = server.test_details?.host_key ?? null;
  if (shown === null) return null;
  const isChanged = server.test_status === 'host_key_changed';
  const { type, fingerprint, hop } = shown;
  return (
    <section className={classes['hostKey']} data-changed={isChanged} aria-labelledby="host-key">
      <h2 id="host-key">{isChanged ? texts.changedTitle : texts.title}</h2>
      {isChanged && <p>{texts.changedText}</p>}
      <p>{texts.text}</p>
      <div className={classes['command']}>
        <code>{texts.command}</code>
        <CopyButton value={texts.command} />
      </div>
      <dl>
        {isChanged && server.host_key !== null && (
          <div>
            <dt>{texts.stored}</dt>
            <dd>
              <code>{`${server.host_key.type} ${server.host_key.fingerprint}`}</code>
            </dd>
          </div>
        )}
        <div>
          <dt>{texts.shown}</dt>
          <dd>
            <code>{`${type} ${fingerprint}`}</code>
          </dd>
        </div>
      </dl>
      <ErrorNotice error={confirm.error} />
      <Button
        loading={confirm.isPending}
        onClick={() => {
          confirm.mutate({ type, fingerprint, ...(hop === null ? {} : { hop }) }, { onSuccess: onConfirmed });
        }}
      >
        {texts.confirm}
      </Button>
    </section>
  );
}
