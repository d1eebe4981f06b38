import { Button } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState, type ReactNode } from 'react';
import type { z } from 'zod';
import type { SessionView } from '../../../identity/schema.ts';
import { sessionsQuery, useEndSession } from '../../api/installation.ts';
import { ConfirmDialog } from '../../components/confirm-dialog.tsx';
import { RelativeTime } from '../../components/relative-time.tsx';
import { settingsTexts as texts } from '../../texts/settings.ts';
import classes from './settings.module.css';

type Session = z.output<typeof SessionView>;

/** The user's signed-in browsers. The one that is used now is ended by signing out. */
export function Sessions(): ReactNode {
  const { data: sessions = [] } = useQuery(sessionsQuery);
  const [ended, setEnded] = useState<Session>();
  const end = useEndSession();
  return (
    <>
      <ul className={classes['sessions']}>
        {sessions.map((session) => (
          <li key={session.id}>
            <span>
              {session.client ?? texts.unknownClient}
              <small>
                {session.current ? (
                  texts.thisSession
                ) : (
                  <>
                    {texts.lastUsed} <RelativeTime time={session.last_used_at} />
                  </>
                )}
              </small>
            </span>
            {!session.current && (
              <Button
                variant="default"
                size="xs"
                onClick={() => {
                  setEnded(session);
                }}
              >
                {texts.endSession}
              </Button>
            )}
          </li>
        ))}
      </ul>
      <ConfirmDialog
        opened={ended !== undefined}
        title={texts.endSessionTitle}
        confirmLabel={texts.endSession}
        onConfirm={() => end.mutateAsync(ended?.id ?? '')}
        onClose={() => {
          setEnded(undefined);
        }}
      >
        {texts.endSessionText}
      </ConfirmDialog>
    </>
  );
}
