import type { ReactNode } from 'react';
import classes from './states.module.css';

export interface EmptyStateProps {
  title: string;
  /** What the list is for, in a sentence or two. */
  children: ReactNode;
  /** The button that makes the first entry. */
  action?: ReactNode;
}

/** Shown in place of a list without entries. */
export function EmptyState({ title, children, action }: EmptyStateProps): ReactNode {
  return (
    <section className={classes['state']}>
      <h2>{title}</h2>
      <p>{children}</p>
      {action !== undefined && <div className={classes['actions']}>{action}</div>}
    </section>
  );
}
