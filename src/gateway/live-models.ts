import type { Dialer, UpstreamAnswer } from '../lib/dialer.ts';
import { upstreamHeaders } from './headers.ts';
import { parseJson } from '../lib/json-bounds.ts';
import { StrictModelList, UpstreamModelList } from './schema.ts';
import { discard, malformed, readWhole } from '../lib/upstream-body.ts';
import type { UpstreamAddress } from '../providers/address.ts';

/** A model as an upstream lists it. */
export interface UpstreamModel {
  id: string;
  /** Epoch seconds. */
  created?: number | undefined;
  owned_by?: string | undefined;
}

export interface LiveModelsQuestion {
  /** Under which name the list is remembered: never the key itself. */
  cacheName: string;
  address: UpstreamAddress;
  /** Null when the endpoint wants no key. */
  secret: string | null;
  /** For an address that a user brought. */
  hop: string | null;
  signal: AbortSignal;
}

/**
 * Asks a provider for its models; remembered for 5 minutes.
 * @returns undefined when it does not answer within 2 s, or not with a model list.
 * @throws the signal's reason.
 */
export type FindLiveModels = (question: LiveModelsQuestion) => Promise<readonly UpstreamModel[] | undefined>;

const FRESH_MS = 5 * 60_000;
const DEADLINE_MS = 2_000;
const REMEMBERED_LISTS = 1_000;
const MAX_LIST_BYTES = 8 * 1024 * 1024;

export function createLiveModels(dialer: Dialer): FindLiveModels {
  const cache = new Map<string, { models: readonly UpstreamModel[]; untilMs: number }>();
  return async (question) => {
    const cached = cache.get(question.cacheName);
    if (cached !== undefined && cached.untilMs > Date.now()) return cached.models;
    try {
      const models = await fetchModels(dialer, question);
      cache.delete(question.cacheName);
      cache.set(question.cacheName, { models, untilMs: Date.now() + FRESH_MS });
      const oldest = cache.keys().next();
      if (cache.size > REMEMBERED_LISTS && !oldest.done) cache.delete(oldest.value);
      return models;
    } catch {
      question.signal.throwIfAborted();
      return undefined;
    }
  };
}

async function fetchModels(dialer: Dialer, question: LiveModelsQuestion): Promise<readonly UpstreamModel[]> {
  const { address, secret, hop, signal } = question;
  const answer = await dialer.request({
    url: new URL(`${address.baseUrl}/models`),
    method: 'GET',
    headers: upstreamHeaders({ client: {}, secret, stream: false, scope: 'personal', hop }),
    guarded: address.isUsers,
    signal: AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]),
    firstByteTimeoutMs: DEADLINE_MS,
    idleTimeoutMs: DEADLINE_MS,
  });
  try {
    return await readModels(answer);
  } finally {
    discard(answer.body);
  }
}

async function readModels(answer: UpstreamAnswer): Promise<readonly UpstreamModel[]> {
  if (answer.status !== 200) throw malformed(`The provider answered ${answer.status}.`);
  const value = parseJson((await readWhole(answer.body, MAX_LIST_BYTES)).toString('utf8'));
  // Many a service answers `{data: [{id}]}`: from a private address only what calls itself a model list counts.
  return (answer.fromPublicAddress ? UpstreamModelList : StrictModelList).parse(value).data;
}
