import { MutationCache, QueryCache, QueryClient } from '@tanstack/react-query';
import { isApiError, isTemporary } from './problem.ts';
import { sessionState } from '../shell/session-state.ts';

const MAX_RETRIES = 2;

/** Each call that fails with 401 says that the session has ended, whatever page made it. */
function watchSession(error: unknown): void {
  if (isApiError(error, 'unauthenticated')) sessionState.markEnded();
}

export const queryClient = new QueryClient({
  queryCache: new QueryCache({ onError: watchSession }),
  mutationCache: new MutationCache({ onError: watchSession }),
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      retry: (failures, error) => isTemporary(error) && failures < MAX_RETRIES,
      networkMode: 'always',
    },
    // A write is repeated by the user, who can see what the first one did.
    mutations: { retry: false, networkMode: 'always' },
  },
});
