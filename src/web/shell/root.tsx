import { Button } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Outlet } from '@tanstack/react-router';
import { Suspense, useEffect, useState, type ReactNode } from 'react';
import { meQuery, type CurrentUser } from '../api/me.ts';
import { isApiError, isTemporary } from '../api/problem.ts';
import { useAppState } from '../app-state.ts';
import { ErrorPage } from '../components/error-state.tsx';
import { Loading } from '../components/loading.tsx';
import { shellTexts } from '../texts/shell.ts';
import { Landing } from './landing.tsx';
import { followOtherTabs, leaveUser } from './other-tabs.ts';
import { SessionEnded } from './session-ended.tsx';
import { Shell } from './shell.tsx';
import { SignOutForm } from './sign-out.tsx';
import classes from './shell.module.css';

/** Between two attempts to reach the server, ms. */
const RETRY_INTERVAL_MS = 3_000;

/** The landing for visitors, the shell with the opened page for signed-in users. */
export function Root(): ReactNode {
  const { connection } = useAppState();
  const me = useQuery({ ...meQuery, refetchInterval: connection === 'lost' ? RETRY_INTERVAL_MS : false });
  if (me.data !== undefined) return <SignedIn me={me.data} />;
  if (me.isPending)
    return (
      <main className={classes['bare']}>
        <Loading />
      </main>
    );
  if (isApiError(me.error, 'unauthenticated')) return <Landing />;
  return (
    <main className={classes['bare']}>
      <ErrorPage
        error={me.error}
        onRetry={() => void me.refetch()}
        // E.g. two session cookies, of which the server uses neither.
        actions={isTemporary(me.error) ? undefined : <SignOutButton />}
      />
    </main>
  );
}

function SignOutButton(): ReactNode {
  return (
    <SignOutForm>
      <Button type="submit" variant="default">
        {shellTexts.signOut}
      </Button>
    </SignOutForm>
  );
}

function SignedIn({ me }: { me: CurrentUser }): ReactNode {
  const { session } = useAppState();
  const [firstUserId] = useState(me.id);
  const isOtherUser = me.id !== firstUserId;
  useEffect(() => followOtherTabs(firstUserId), [firstUserId]);
  useEffect(() => {
    if (isOtherUser) leaveUser(me.id);
  }, [isOtherUser, me.id]);
  if (isOtherUser) return null;
  return (
    <Shell me={me}>
      <Suspense fallback={<Loading />}>
        <Outlet />
      </Suspense>
      {session === 'ended' && <SessionEnded />}
    </Shell>
  );
}
