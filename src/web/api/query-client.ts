import { MutationCache, QueryCache, QueryClient } from '@tanstack/react-query';
import { getAppState, setAppState, subscribeToAppState } from '../app-state.ts';
import { isApiError, isTemporary } from './problem.ts';

const MAX_RETRIES = 2;

/** Errors that concern more than the call: the session has ended, or the tier has changed since the page was opened. */
function watchErrors(error: unknown): void {
  if (isApiError(error, 'unauthenticated')) setAppState({ session: 'ended' });
  if (isApiError(error, 'tier_required')) void queryClient.invalidateQueries({ queryKey: ['me'] });
}

export const queryClient = new QueryClient({
  queryCache: new QueryCache({ onError: watchErrors }),
  mutationCache: new MutationCache({ onError: watchErrors }),
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      retry: (failures, error) => isTemporary(error) && failures < MAX_RETRIES,
      // The browser's own knowledge about the network is unreliable: calls are always tried.
      networkMode: 'always',
      refetchOnReconnect: true,
    },
    // A write is repeated by the user, who can see what the first one did.
    mutations: { retry: false, networkMode: 'always' },
  },
});

/** After the server was away, everything that is shown is read again. */
let connection = getAppState().connection;
subscribeToAppState(() => {
  const isBack = connection === 'lost' && getAppState().connection === 'connected';
  connection = getAppState().connection;
  if (isBack) void queryClient.invalidateQueries();
});
