import type { Principal } from '../../http/principal.ts';
import { requireTier } from '../../http/authorization.ts';
import type { UserCache } from '../../identity/service.ts';
import type { KeyService } from '../../keys/service.ts';
import { AppError, unauthenticated } from '../../lib/errors.ts';
import { userOwner } from '../../lib/owner.ts';
import type { Provider } from '../../providers/provider.ts';
import { BYOK_TIER } from '../../config/tiers.ts';
import { toKeyTestOutcome } from '../../providers/key-test.ts';
import type { Surface } from '../surface.ts';
import type { ClassifiedResponse, ErrorResponse } from './response.ts';
import { checkPersonalKeyBody } from '../admission/request-body.ts';
import type { Receipt } from './response-headers.ts';
import type { GatewayDecision, GatewayKey, Routing } from '../routing/routing.ts';
import type { StoredResponses } from '../stored-responses/stored-responses.ts';
import { findKeyAddress, type OperatorUpstreams } from '../../providers/address.ts';
import { logKeyRefusal, type UpstreamTarget, type UpstreamCalls, type GatewayCall } from './calls.ts';
import { forwardsAccountHeaders } from './request-headers.ts';

type PoolDecision = Extract<GatewayDecision, { kind: 'pool' }>;

export interface ServeFromPoolDeps {
  routing: Routing;
  keyStatus: KeyStatusWriter;
  userCache: UserCache;
  calls: UpstreamCalls;
  /** Throws for an unknown provider id. */
  getProvider(id: string): Provider;
  upstreams: OperatorUpstreams;
  storedResponses: Pick<StoredResponses, 'record'>;
}

/**
 * Serves a request with the keys of a pool. Only a 401 that is about the key moves on to the next key. When every key is
 * refused, the first 401 is sent to the client. Any other response is sent as it is and changes no key's status. A response
 * that has begun as a stream has no part of an answer yet, so the next key is tried for it as well.
 */
export type ServeFromPool = (call: GatewayCall, decision: PoolDecision) => Promise<void>;

export function createServeFromPool(deps: ServeFromPoolDeps): ServeFromPool {
  return async (call, decision) => {
    const provider = deps.getProvider(decision.provider);
    deps.routing.advanceRotation(decision.pool);
    let firstUnauthorized: { response: ClassifiedResponse; target: UpstreamTarget } | undefined;
    let attempts = 0;
    for (const decidedKey of decision.keys) {
      const key = attempts === 0 ? decidedKey : await reauthorizeKey(deps, call.principal, decidedKey);
      if (key === undefined) continue;
      attempts += 1;
      const target = {
        ...createPoolTarget(provider, key, decision, attempts, deps.upstreams),
        ...(call.body.isResponseStored
          ? { recordResponse: createRecorder(deps, call, key, decision.model) }
          : {}),
      };
      checkPersonalKeyBody(call.body, target.address.isOperatorSupplied);
      const response = await deps.calls.send(call, target, decidedKey === decision.keys.at(-1));
      const isRefused =
        response.kind === 'error' &&
        isKeyRefusal(response, {
          ...{ surface: call.surface, provider },
          forwardsAccountHeaders: forwardsAccountHeaders(call.request.headers, target.receipt.scope),
        });
      if (!isRefused) {
        if (response.kind !== 'error') deps.keyStatus.writeUse(call, key);
        return deps.calls.respond(call, target, response);
      }
      logKeyRefusal(call);
      await deps.keyStatus.writeRefusal(call, key);
      firstUnauthorized ??= { response, target };
    }
    if (firstUnauthorized === undefined) throw new Error('a pool decision without keys');
    if (!call.response.headersSent) call.response.setHeader('x-should-retry', 'false');
    const { target, response } = firstUnauthorized;
    const receipt = { ...target.receipt, attempts };
    return deps.calls.respond(call, { ...target, receipt }, response);
  };
}

export interface KeyRefusalContext {
  surface: Surface;
  provider: Provider;
  /** True when the upstream received `openai-organization` or `openai-project` from the client. */
  forwardsAccountHeaders: boolean;
}

/**
 * True when a 401 shows that the key itself is refused. A 401 that this request caused (its organization, project, model
 * or missing scope) or that reports an empty account is not about the key, which other requests can use.
 * A 401 without an explanation counts as about the key, unless the client named an organization or a project. One whose
 * body did not arrive whole may have an explanation.
 */
export function isKeyRefusal(response: ErrorResponse, context: KeyRefusalContext): boolean {
  const { status, value } = response;
  const isIncomplete = 'otherBody' in response && response.otherBody === 'an incomplete body';
  if (status !== 401 || isIncomplete) return false;
  const cause = context.surface.findRefusalCause(value);
  if (cause === 'key') return true;
  if (toKeyTestOutcome(context.provider, { status, body: value }).status !== 'invalid') return false;
  return cause === 'probably_key' || (cause === undefined && !context.forwardsAccountHeaders);
}

/** @throws AppError `key_undecryptable` when the key cannot be decrypted, or has no address any more. */
export function createPoolTarget(
  provider: Provider,
  key: GatewayKey,
  decision: Pick<PoolDecision, 'model' | 'pool'>,
  attempts: number,
  upstreams: OperatorUpstreams,
): UpstreamTarget {
  const decrypted = key.decrypt();
  const address = decrypted && findKeyAddress(provider, decrypted.endpoint, upstreams);
  if (decrypted === undefined || address === undefined) {
    throw new AppError('key_undecryptable', 'The stored key cannot be used any more. Add it again.');
  }
  const { model, pool } = decision;
  const receipt: Receipt = {
    provider: provider.id,
    model,
    scope: pool.scope,
    keyId: key.id,
    endpointSlug: address.isUserSupplied ? pool.endpointSlug : null,
    attempts,
    reason: null,
    upstreamRequestId: null,
  };
  return { provider, address, secret: decrypted.secret === '' ? null : decrypted.secret, receipt };
}

function createRecorder(
  { storedResponses }: Pick<ServeFromPoolDeps, 'storedResponses'>,
  { principal, log }: GatewayCall,
  { provider, id: keyId, endpoint }: GatewayKey,
  model: string,
): (responseId: string) => Promise<void> {
  const owner = userOwner(principal.user.id);
  return (id) => storedResponses.record(owner, { id, provider, keyId, endpoint, model }, log);
}

/**
 * Authorizes every further attempt again. Since the first one, the user may have been disabled or downgraded, and
 * the key deleted, replaced or put in cooldown.
 * @returns the current key; undefined when it must be skipped.
 */
async function reauthorizeKey(
  { userCache, routing }: ServeFromPoolDeps,
  principal: Principal,
  key: GatewayKey,
): Promise<GatewayKey | undefined> {
  const user = await userCache.findUser(principal.user.id);
  if (user === undefined) throw unauthenticated();
  requireTier({ ...principal, user }, BYOK_TIER);
  return routing.findUsableKey(user, key);
}

/** Writes the status of keys after use. A failed write is logged and never fails the request. */
export interface KeyStatusWriter {
  /** Runs in the background. */
  writeUse(call: GatewayCall, key: KeyReference): void;
  /**
   * Completes before the response is sent, so that the next request already skips the key. Does nothing when the
   * key was replaced while the upstream processed the request.
   */
  writeRefusal(call: GatewayCall, key: KeyReference): Promise<void>;
  /** Logs `key_undecryptable` and writes the status of every undecryptable key of a decision, in the background. */
  writeUndecryptable(call: GatewayCall, decision: GatewayDecision): void;
  /** Resolves when all pending writes have ended. */
  flush(): Promise<void>;
}

type KeyReference = Pick<GatewayKey, 'provider' | 'id' | 'token'>;

export function createKeyStatusWriter(
  keys: Pick<KeyService, 'isStored' | 'recordUse' | 'recordRefusal' | 'recordUndecryptable'>,
): KeyStatusWriter {
  async function writeRefusalIfStored(call: GatewayCall, key: KeyReference): Promise<void> {
    const owner = userOwner(call.principal.user.id);
    if (await keys.isStored(owner, key)) await keys.recordRefusal(owner, key.provider, key.id);
  }

  const pending = new Set<Promise<void>>();
  function track(call: GatewayCall, write: Promise<void>): Promise<void> {
    const tracked = write
      .catch((error: unknown) => {
        call.log.warn({ err: error }, 'key status could not be written');
      })
      .finally(() => pending.delete(tracked));
    pending.add(tracked);
    return tracked;
  }
  return {
    writeUse: (call, { provider, id }) =>
      void track(call, keys.recordUse(userOwner(call.principal.user.id), provider, id)),
    writeRefusal: (call, key) => track(call, writeRefusalIfStored(call, key)),
    writeUndecryptable(call, decision) {
      if (!('skipped' in decision)) return;
      const { provider, skipped } = decision;
      for (const { keyId, reason } of skipped) {
        if (reason !== 'undecryptable') continue;
        const fields = { event: 'key_undecryptable', user: call.principal.user.id, provider, key_id: keyId };
        call.log.warn(fields, 'a stored key cannot be decrypted');
        void track(call, keys.recordUndecryptable(userOwner(call.principal.user.id), provider, keyId));
      }
    },
    flush: async () => {
      await Promise.all(pending);
    },
  };
}
