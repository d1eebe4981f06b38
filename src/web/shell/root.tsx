import { useQuery } from '@tanstack/react-query';
import { Outlet } from '@tanstack/react-router';
import { Suspense, type ReactNode } from 'react';
import { meQuery } from '../api/me.ts';
import { isApiError } from '../api/problem.ts';
import { ErrorState } from '../components/error-state.tsx';
import { Loading } from '../components/loading.tsx';
import { Landing } from './landing.tsx';
import { SessionEnded } from './session-ended.tsx';
import { Shell } from './shell.tsx';
import { useSessionState } from './session-state.ts';

/** The landing for visitors, the shell with the opened page for signed-in users. */
export function Root(): ReactNode {
  const me = useQuery(meQuery);
  const session = useSessionState();
  if (me.data === undefined) {
    if (me.isPending) return <Loading />;
    if (isApiError(me.error, 'unauthenticated')) return <Landing />;
    return <ErrorState error={me.error} onRetry={() => void me.refetch()} />;
  }
  return (
    <Shell me={me.data}>
      <Suspense fallback={<Loading />}>
        <Outlet />
      </Suspense>
      {session === 'ended' && <SessionEnded />}
    </Shell>
  );
}
