import type { Route } from '../http/route.ts';
import type { UserCache, ActiveWork } from '../identity/service.ts';
import type { KeyService } from '../keys/service.ts';
import { userOwner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { Dialer } from '../lib/net/dialer.ts';
import type { Provider } from '../providers/provider.ts';
import { createServeRequest } from './serve-request.ts';
import type { LoopGuard } from '../lib/net/loop-guard.ts';
import { createListModels } from './surfaces/models/list-models.ts';
import { createOpenRequestLimit } from '../http/limits.ts';
import { createKeyStatusWriter, createServeFromPool } from './upstream/serve-from-pool.ts';
import type { SystemDefault } from './routing/resolve.ts';
import { gatewayRoutes } from './routes.ts';
import { createRouting } from './routing/routing.ts';
import { pinDecision } from './stored-responses/pinned-key.ts';
import { createResponseStore, type ResponseStore } from './stored-responses/response-store.ts';
import { createServeStoredResponse } from './stored-responses/serve-stored-response.ts';
import { createStoredResponses } from './stored-responses/stored-responses.ts';
import { createServeFromSystem, type SystemCredential } from './upstream/serve-from-system.ts';
import type { OperatorUpstreams } from '../providers/address.ts';
import { createUpstreamCalls, type GatewayTimeouts } from './upstream/calls.ts';
import { followCalls } from './upstream/followed-calls.ts';
import { createIdempotencyMask } from './upstream/idempotency-mask.ts';
import type { UsageRecorder } from '../usage/service.ts';

/** What is stored about responses, for the command that removes deleted users. Sends no query before a call. */
export function createStoredResponseData(
  database: Database,
): Pick<ResponseStore, 'listOwners' | 'removeAll'> {
  return createResponseStore(database);
}

export interface GatewayDeps {
  database: Database;
  keys: KeyService;
  userCache: UserCache;
  activeWork: ActiveWork;
  dialer: Dialer;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  /** The key that is used when the user has none; null when the operator has configured none. */
  system: (SystemDefault & SystemCredential) | null;
  timeouts: GatewayTimeouts;
  /** Open requests to `/v1` of one user in this process, for any payer. */
  requestsPerUser: number;
  loopGuard: LoopGuard;
  /** Shared by all instances, so that each masks an idempotency key in the same way. */
  idempotencySecret: string;
  usage: UsageRecorder;
}

export interface Gateway {
  routes: Route[];
  /** Removes what is stored about a deleted user. */
  removeUser(userId: string): Promise<void>;
  /** Resolves when all pending writes of key status and of stored responses have ended. */
  flush(): Promise<void>;
}

/** Requests of a user beyond `requestsPerUser`: agents send bursts, and most requests end soon. */
const REQUEST_QUEUE = { maxQueued: 100, waitMs: 2_000 };

export function createGateway(deps: GatewayDeps): Gateway {
  const { keys, dialer, loopGuard, providers, system, upstreams, userCache, activeWork } = deps;
  const keyStatus = createKeyStatusWriter(keys);
  const routing = createRouting(deps);
  const calls = followCalls(
    createUpstreamCalls({
      dialer,
      loopGuard,
      maskIdempotencyKey: createIdempotencyMask(deps.idempotencySecret),
      timeouts: deps.timeouts,
    }),
  );
  const getProvider = (id: string) => providers.find((provider) => provider.id === id) ?? unknownProvider(id);
  const storedResponses = createStoredResponses(createResponseStore(deps.database));
  const pinned = { storedResponses, routing };
  const openRequestLimit = createOpenRequestLimit(deps.requestsPerUser, REQUEST_QUEUE);
  const serveRequest = createServeRequest({
    routing,
    keyStatus,
    activeWork,
    loopGuard,
    getProvider,
    pinDecision: (call, decision) => pinDecision(pinned, call, decision),
    usage: deps.usage,
    serveFromPool: createServeFromPool({
      routing,
      keyStatus,
      userCache,
      calls,
      getProvider,
      upstreams,
      storedResponses,
    }),
    serveFromSystem: createServeFromSystem({ system, calls, getProvider, upstreams }),
  });
  const serveStoredResponse = createServeStoredResponse({ ...deps, ...pinned, calls, getProvider });
  const listModels = createListModels({ ...deps, routing });
  return {
    routes: gatewayRoutes({ serveRequest, serveStoredResponse, listModels, routing, openRequestLimit }),
    removeUser: (userId) => storedResponses.removeAll(userOwner(userId)),
    async flush() {
      await Promise.all([keyStatus.flush(), storedResponses.flush()]);
    },
  };
}

function unknownProvider(id: string): never {
  throw new Error(`unknown provider ${id}`);
}
