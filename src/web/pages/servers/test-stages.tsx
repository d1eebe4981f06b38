import type { ReactNode } from 'react';
import type { ServerView } from '../../../servers/schema.ts';
import { StatusBadge, type StatusTone } from '../../components/status-badge.tsx';
import { formatDuration } from '../../texts/format.ts';
import { serversTexts as texts, stageTexts } from '../../texts/servers.ts';
import classes from './servers.module.css';

const TONES: Record<'ok' | 'failed' | 'skipped', StatusTone> = {
  ok: 'good',
  failed: 'bad',
  skipped: 'neutral',
};

/** The stages of the last test in their order, with what helps where one has failed. */
export function TestStages({ details }: { details: ServerView['test_details'] }): ReactNode {
  if (details === null) return null;
  return (
    <section aria-labelledby="stages">
      <h2 id="stages" className={classes['heading']}>
        {texts.stages}
      </h2>
      <p className={classes['message']}>{details.message}</p>
      <ol className={classes['stages']}>
        {details.stages.map(({ name, status, duration_ms: durationMs, message }) => {
          const known = stageTexts[name];
          return (
            <li key={name}>
              <StatusBadge tone={TONES[status]}>{texts.stageStatuses[status]}</StatusBadge>
              <div>
                <strong>{known.label}</strong>
                {message !== '' && <p>{message}</p>}
                {status === 'failed' && <p className={classes['fix']}>{known.fix}</p>}
              </div>
              {status !== 'skipped' && <small>{formatDuration(durationMs)}</small>}
            </li>
          );
        })}
      </ol>
    </section>
  );
}
