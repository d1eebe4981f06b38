import { AppError, notFound } from '../../lib/errors.ts';
import { userOwner } from '../../lib/owner.ts';
import { isModelAllowed } from '../routing/token-restrictions.ts';
import type { GatewayCall } from '../upstream/calls.ts';
import { findSkipReason } from '../routing/resolve.ts';
import type { GatewayDecision, GatewayKey, GatewayPool, Routing } from '../routing/routing.ts';
import type { StoredResponse } from './response-store.ts';
import type { StoredResponses } from './stored-responses.ts';

type PoolDecision = Extract<GatewayDecision, { kind: 'pool' }>;

export interface PinnedKeyDeps {
  storedResponses: StoredResponses;
  routing: Pick<Routing, 'readPools'>;
}

/** The key that made a response. */
export interface PinnedKey {
  stored: StoredResponse;
  pool: GatewayPool;
  key: GatewayKey;
}

/**
 * Finds the key that made a stored response: another account does not have the response.
 * @throws AppError `not_found` (404) for an unknown response, also that of another user, and for one whose key was removed
 *   or has another address now; `no_usable_key` (424) for a key that is disabled, expired or in cooldown.
 */
export async function getPinnedKey(
  { storedResponses, routing }: PinnedKeyDeps,
  { principal }: Pick<GatewayCall, 'principal'>,
  responseId: string,
): Promise<PinnedKey> {
  const stored = await storedResponses.find(userOwner(principal.user.id), responseId);
  if (stored === undefined)
    throw notFound(`A response with the id ${quote(responseId)}, made with a key of yours,`);
  const pinned = findKey(await routing.readPools(principal), stored);
  if (pinned === undefined) throw notFound('The key that made this response');
  if (!isModelAllowed(principal.token, pinned.pool, stored.model))
    throw notFound('A response of a model that this token may use, with this id,');
  const reason = findSkipReason(pinned.key, new Date());
  if (reason !== undefined)
    throw new AppError(
      'no_usable_key',
      `The ${stored.provider} key that made this response cannot be used.`,
      {
        extra: { skipped: [{ key_id: pinned.key.id, reason }] },
        headers: { 'x-should-retry': 'false' },
      },
    );
  return { stored, ...pinned };
}

/**
 * Limits a decision to the key that made the response which the request continues.
 * @throws AppError `validation_failed` (400) for a reference to a response that no usable key of the pool has made.
 */
export async function pinDecision(
  deps: PinnedKeyDeps,
  call: GatewayCall,
  decision: PoolDecision,
): Promise<PoolDecision> {
  const id = call.body.previousResponseId;
  if (id === undefined) return decision;
  const { stored, pool, key } = await getPinnedKey(deps, call, id).catch((error: unknown) => {
    throw error instanceof AppError && error.code === 'not_found'
      ? previousResponseError(error.detail)
      : error;
  });
  if (pool.id !== decision.pool.id)
    throw previousResponseError(
      `The previous response was made with a key for ${stored.provider}, which does not serve this model.`,
    );
  return { ...decision, keys: [key] };
}

function findKey(
  pools: readonly GatewayPool[],
  { provider, keyId, endpoint }: StoredResponse,
): Pick<PinnedKey, 'pool' | 'key'> | undefined {
  for (const pool of pools.filter((one) => one.provider === provider)) {
    const key = pool.keys.find((one) => one.id === keyId && one.endpoint === endpoint);
    if (key !== undefined) return { pool, key };
  }
  return undefined;
}

function previousResponseError(detail: string): AppError {
  return new AppError('validation_failed', detail, {
    errors: [{ path: 'previous_response_id', message: 'is no response of a key that serves this request' }],
    headers: { 'x-should-retry': 'false' },
  });
}

/** The id is client input: it is shortened and quoted as JSON. */
function quote(id: string): string {
  return JSON.stringify(id.slice(0, 64));
}
