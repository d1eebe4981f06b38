import type { User } from '../http/principal.ts';
import type { Route } from '../http/routes.ts';
import type { Directory, LiveWork } from '../identity/service.ts';
import type { KeyService } from '../keys/service.ts';
import type { Dialer } from '../lib/dialer.ts';
import type { Provider } from '../providers/provider.ts';
import { createBodyBudget } from './body-budget.ts';
import { createChat } from './chat.ts';
import { explain } from './explain.ts';
import type { Hops } from '../lib/hop.ts';
import { createIdempotencyMask } from './idempotency.ts';
import { createKeyNotes } from './key-notes.ts';
import { createLiveModels } from './live-models.ts';
import { createModels } from './models.ts';
import { createOpenRequests } from '../http/open-requests.ts';
import { createPoolAnswer } from './pool-answer.ts';
import type { SystemDefault } from './resolve.ts';
import { createRotation } from './rotation.ts';
import { gatewayRoutes } from './routes.ts';
import { createRouting } from './routing.ts';
import { createSystemAnswer, type SystemKey } from './system-answer.ts';
import { createSystemLimits } from './system-limits.ts';
import type { OperatorUpstreams } from '../providers/address.ts';
import { createUpstreamCalls } from './upstream-calls.ts';

export interface GatewayDeps {
  keys: KeyService;
  directory: Directory;
  liveWork: LiveWork;
  dialer: Dialer;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  /** What pays where the user has no key; null when the operator has set none up. */
  system: (SystemDefault & SystemKey) | null;
  timeouts: { firstByteMs: number; idleMs: number };
  hops: Hops;
  /** What all instances share, so that each masks an idempotency key in the same way. */
  maskSecret: string;
}

export interface Gateway {
  routes: Route[];
  /** In one sentence, which key would answer a request of the user that names no model. */
  explainRoute(user: User): Promise<string>;
  /** Resolves when everything noted about keys is written. */
  settled(): Promise<void>;
}

/** Requests to `/v1` that one user may have open at once, whoever pays: an answer may stream for long. */
const MOST_OPEN = 16;

/** Builds the gateway from its parts. */
export function createGateway(deps: GatewayDeps): Gateway {
  const { keys, dialer, hops, providers, system, upstreams, directory, liveWork } = deps;
  const notes = createKeyNotes(keys);
  const routing = createRouting({ keys, providers, system, rotation: createRotation() });
  const calls = createUpstreamCalls({
    dialer,
    hops,
    maskIdempotencyKey: createIdempotencyMask(deps.maskSecret),
    timeouts: deps.timeouts,
  });
  const getProvider = (id: string) => providers.find((provider) => provider.id === id) ?? unknownProvider(id);
  const limits = createSystemLimits();
  const openRequests = createOpenRequests(MOST_OPEN);
  const chat = createChat({
    routing,
    notes,
    liveWork,
    hops,
    openRequests,
    bodyBudget: createBodyBudget(),
    answerFromPool: createPoolAnswer({ routing, notes, directory, calls, getProvider, upstreams }),
    answerFromSystem: createSystemAnswer({ system, limits, calls, getProvider, upstreams }),
  });
  const findLiveModels = createLiveModels(dialer);
  const listModels = createModels({ keys, findLiveModels, hops, providers, upstreams, system });
  return {
    routes: gatewayRoutes({ chat, listModels, routing, openRequests }),
    explainRoute: async (user) => explain(await routing.decide(user, undefined)),
    settled: () => notes.settled(),
  };
}

function unknownProvider(id: string): never {
  throw new Error(`no provider ${id}`);
}
