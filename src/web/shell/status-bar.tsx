import { useRouterState } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import { useAppState } from '../app-state.ts';
import { shellTexts } from '../texts/shell.ts';
import classes from './status-bar.module.css';

const texts = shellTexts.statusBar;

/** Below the header: a page that is being loaded, a lost connection, a newer version. */
export function StatusBar(): ReactNode {
  const { connection, isOutdated } = useAppState();
  const isLoading = useRouterState({ select: ({ status }) => status === 'pending' });
  return (
    <>
      {isLoading && <div className={classes['progress']} aria-hidden="true" />}
      <div className={classes['bars']} role="status">
        {connection === 'lost' && (
          <p className={classes['bar']}>{navigator.onLine ? texts.serverAway : texts.offline}</p>
        )}
        {isOutdated && connection === 'connected' && (
          <p className={classes['bar']}>
            {texts.newVersion}{' '}
            <button className={classes['button']} type="button" onClick={() => window.location.reload()}>
              {texts.reload}
            </button>
          </p>
        )}
      </div>
    </>
  );
}
