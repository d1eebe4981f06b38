import type { User } from '../http/principal.ts';
import type { Route } from '../http/route.ts';
import type { UserCache, ActiveWork } from '../identity/service.ts';
import type { KeyService } from '../keys/service.ts';
import type { Dialer } from '../lib/net/dialer.ts';
import type { Provider } from '../providers/provider.ts';
import { createBodyLimits } from './admission/body-limits.ts';
import { createChatSurface } from './surfaces/openai-chat/surface.ts';
import { explainDecision } from './routing/decision-text.ts';
import type { LoopGuard } from '../lib/net/loop-guard.ts';
import { createIdempotencyMask } from './upstream/idempotency.ts';
import { createKeyStatusWriter } from './routing/key-status-writer.ts';
import { createFindProviderModels } from './surfaces/models/provider-models.ts';
import { createListModels } from './surfaces/models/list-models.ts';
import { createOpenRequestLimit } from '../http/limits.ts';
import { createServeFromPool } from './upstream/serve-from-pool.ts';
import type { SystemDefault } from './routing/resolve.ts';
import { createRotation } from './routing/rotation.ts';
import { gatewayRoutes } from './routes.ts';
import { createRouting } from './routing/routing.ts';
import { createServeFromSystem, type SystemCredential } from './upstream/serve-from-system.ts';
import { createSystemLimits } from './admission/system-limits.ts';
import type { OperatorUpstreams } from '../providers/address.ts';
import { createUpstreamCalls } from './upstream/calls.ts';

export interface GatewayDeps {
  keys: KeyService;
  directory: UserCache;
  liveWork: ActiveWork;
  dialer: Dialer;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  /** What pays where the user has no key; null when the operator has set none up. */
  system: (SystemDefault & SystemCredential) | null;
  timeouts: { firstByteMs: number; idleMs: number };
  loopGuard: LoopGuard;
  /** What all instances share, so that each masks an idempotency key in the same way. */
  idempotencySecret: string;
}

export interface Gateway {
  routes: Route[];
  /** In one sentence, which key would answer a request of the user that names no model. */
  explainRoute(user: User): Promise<string>;
  /** Resolves when everything noted about keys is written. */
  flushKeyStatus(): Promise<void>;
}

/** Requests to `/v1` that one user may have open at once, whoever pays: an answer may stream for long. */
const MAX_OPEN_REQUESTS = 16;

/** Builds the gateway from its parts. */
export function createGateway(deps: GatewayDeps): Gateway {
  const { keys, dialer, loopGuard: hops, providers, system, upstreams, directory, liveWork } = deps;
  const notes = createKeyStatusWriter(keys);
  const routing = createRouting({ keys, providers, system, rotation: createRotation() });
  const calls = createUpstreamCalls({
    dialer,
    loopGuard: hops,
    maskIdempotencyKey: createIdempotencyMask(deps.idempotencySecret),
    timeouts: deps.timeouts,
  });
  const getProvider = (id: string) => providers.find((provider) => provider.id === id) ?? unknownProvider(id);
  const systemLimits = createSystemLimits();
  const openRequests = createOpenRequestLimit(MAX_OPEN_REQUESTS);
  const chat = createChatSurface({
    routing,
    keyStatus: notes,
    liveWork,
    loopGuard: hops,
    openRequestLimit: openRequests,
    bodyLimits: createBodyLimits(),
    serveFromPool: createServeFromPool({
      routing,
      keyStatus: notes,
      directory,
      calls,
      getProvider,
      upstreams,
    }),
    serveFromSystem: createServeFromSystem({ system, limits: systemLimits, calls, getProvider, upstreams }),
  });
  const findLiveModels = createFindProviderModels(dialer);
  const listModels = createListModels({
    keys,
    findProviderModels: findLiveModels,
    loopGuard: hops,
    providers,
    upstreams,
    system,
  });
  return {
    routes: gatewayRoutes({ chat, listModels, routing, openRequestLimit: openRequests }),
    explainRoute: async (user) => explainDecision(await routing.decide(user, undefined)),
    flushKeyStatus: () => notes.flush(),
  };
}

function unknownProvider(id: string): never {
  throw new Error(`no provider ${id}`);
}
