import type { ReactNode } from 'react';
import classes from './status-badge.module.css';

/** `busy` for what is still going on, `neutral` for what says nothing about success. */
export type StatusTone = 'good' | 'bad' | 'warning' | 'busy' | 'neutral';

/** A status in words. The colour repeats what the words say. */
export function StatusBadge({ tone, children }: { tone: StatusTone; children: ReactNode }): ReactNode {
  return (
    <span className={classes['badge']} data-tone={tone}>
      {children}
    </span>
  );
}
