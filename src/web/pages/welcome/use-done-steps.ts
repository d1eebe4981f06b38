import { useQuery } from '@tanstack/react-query';
import { keysQuery } from '../../api/keys.ts';
import { serversQuery } from '../../api/servers.ts';
import { tokensQuery } from '../../api/tokens.ts';

/** Programs and other tabs do the steps, too. */
const POLL_INTERVAL_MS = 3_000;

/** Which of the first steps are done, by what exists now. */
export function useDoneSteps(): { key: boolean; server: boolean; request: boolean } {
  const { data: keys = [] } = useQuery(keysQuery);
  const { data: servers = [] } = useQuery({ ...serversQuery, refetchInterval: POLL_INTERVAL_MS });
  const { data: tokens = [] } = useQuery({ ...tokensQuery, refetchInterval: POLL_INTERVAL_MS });
  return {
    key: keys.length > 0,
    server: servers.length > 0,
    request:
      tokens.some(({ last_used_at: usedAt }) => usedAt !== null) ||
      servers.some(({ last_used_at: usedAt }) => usedAt !== null),
  };
}
