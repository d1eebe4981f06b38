import { Alert, Anchor } from '@mantine/core';
import type { ReactNode } from 'react';
import { isApiError } from '../api/problem.ts';
import { shellTexts } from '../texts/shell.ts';
import { describeError } from './error-state.tsx';
import classes from './states.module.css';

/** Why a form or a dialog could not be saved, inside it. Nothing is shown without an error. */
export function ErrorNotice({ error }: { error: unknown }): ReactNode {
  if (error === undefined || error === null) return null;
  const loginUrl = readLoginUrl(error);
  return (
    <Alert color="red" role="alert" my="md">
      {describeError(error).text}{' '}
      {loginUrl !== undefined && <Anchor href={loginUrl}>{shellTexts.errors.signInAgain}</Anchor>}
      {isApiError(error) &&
        error.fieldErrors.map(({ path, message }) => (
          <span key={path} className={classes['fieldError']}>{`${path} ${message}`}</span>
        ))}
    </Alert>
  );
}

/**
 * Where to sign in for a step that needs a recent sign-in, and come back to the address that is open now; never an address
 * outside the app.
 */
function readLoginUrl(error: unknown): string | undefined {
  const url = isApiError(error, 'reauth_required') ? error.members['login_url'] : undefined;
  if (typeof url !== 'string' || !url.startsWith('/auth/login?')) return undefined;
  const { origin, pathname, search } = window.location;
  const login = new URL(url, origin);
  login.searchParams.set('return_to', pathname + search);
  return login.pathname + login.search;
}
