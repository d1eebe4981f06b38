import { Button } from '@mantine/core';
import { useEffect, type ReactNode } from 'react';
import { isApiError, isTemporary, OutdatedPageError } from '../api/problem.ts';
import { shellTexts } from '../texts/shell.ts';
import { PageHeader } from './page-header.tsx';
import classes from './states.module.css';

/** Time between two attempts while the server is away, ms. */
const RETRY_INTERVAL_MS = 3_000;
const texts = shellTexts.errors;

export interface ErrorStateProps {
  error: unknown;
  /** Reads again. While the server is away it is also called every few seconds. */
  onRetry?: () => void;
  /** Further ways on, beside "Try again". */
  actions?: ReactNode;
  /** False where the title stands above already. */
  isTitled?: boolean;
}

/** As {@link ErrorState}, in place of a whole page: its title is the page's heading. */
export function ErrorPage(props: Omit<ErrorStateProps, 'isTitled'>): ReactNode {
  const { title } = describeError(props.error);
  return (
    <>
      <PageHeader title={title} />
      <ErrorState {...props} isTitled={false} />
    </>
  );
}

/** Shown in place of content that could not be read: what happened, and a way on. */
export function ErrorState({ error, onRetry, actions, isTitled = true }: ErrorStateProps): ReactNode {
  useRetryWhileAway(error, onRetry);
  const { title, text } = describeError(error);
  const requestId = isApiError(error) ? error.requestId : null;
  return (
    <section className={classes['state']} role="alert">
      {isTitled && <h2>{title}</h2>}
      <p>{text}</p>
      {requestId !== null && <p className={classes['detail']}>{texts.requestId(requestId)}</p>}
      <div className={classes['actions']}>
        {error instanceof OutdatedPageError && (
          <Button onClick={() => window.location.reload()}>{texts.reload}</Button>
        )}
        {onRetry !== undefined && !(error instanceof OutdatedPageError) && (
          <Button variant="default" onClick={onRetry}>
            {texts.retry}
          </Button>
        )}
        {actions}
      </div>
    </section>
  );
}

function useRetryWhileAway(error: unknown, onRetry: (() => void) | undefined): void {
  const isAway = isTemporary(error);
  useEffect(() => {
    if (!isAway || onRetry === undefined) return;
    const timer = setInterval(onRetry, RETRY_INTERVAL_MS);
    window.addEventListener('online', onRetry);
    return () => {
      clearInterval(timer);
      window.removeEventListener('online', onRetry);
    };
  }, [isAway, onRetry]);
}

/** Title and sentence of an error. The API's own sentence where it has one. */
export function describeError(error: unknown): { title: string; text: string } {
  if (error instanceof OutdatedPageError) return { title: texts.newVersionTitle, text: texts.newVersionText };
  if (!isApiError(error)) return { title: texts.failedTitle, text: texts.unexpectedText };
  if (error.status === 0) return { title: texts.offlineTitle, text: texts.offlineText };
  if (error.code === 'tier_required') return { title: texts.tierTitle, text: error.message };
  if (error.status === 404) return { title: texts.missingTitle, text: error.message };
  if (error.status >= 502) return { title: texts.unavailableTitle, text: texts.unavailableText };
  return { title: texts.failedTitle, text: error.message };
}
