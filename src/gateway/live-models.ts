import type { Dialer, UpstreamAnswer } from '../lib/dialer.ts';
import { HOP_HEADER } from '../lib/hop.ts';
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
  /** The pool: each has one list, of the key that was asked with last. */
  pool: string;
  /**
   * What tells the keys of a pool apart, one that was replaced from the one before too; never a key itself.
   * Another key's list is not shown: it may reach other models.
   */
  key: string;
  address: UpstreamAddress;
  /** What carries the key, as this provider wants it; none where the endpoint wants no key. */
  authorization: Readonly<Record<string, string>>;
  /** For an address that a user brought. */
  hop: string | null;
  signal: AbortSignal;
}

/**
 * Asks a provider for its models; remembered for 5 minutes. Of a list from an address that a user brought, the
 * first 500 models and 128 KB are taken.
 * @returns undefined when it does not answer within 2 s, or not with a model list.
 * @throws the signal's reason.
 */
export type FindLiveModels = (question: LiveModelsQuestion) => Promise<readonly UpstreamModel[] | undefined>;

const FRESH_MS = 5 * 60_000;
const DEADLINE_MS = 2_000;
const REMEMBERED_LISTS = 1_000;
const MAX_LIST_BYTES = 8 * 1024 * 1024;
const USERS_MODELS = 500;
const USERS_BYTES = 128 * 1024;

export function createLiveModels(dialer: Dialer, now: () => number = Date.now): FindLiveModels {
  const cache = createListCache(now);
  return async (question) => {
    const cached = cache.find(question);
    if (cached !== undefined) return cached;
    try {
      const models = await fetchModels(dialer, question);
      const kept = question.address.isUsers ? firstOf(models) : models;
      cache.keep(question, kept);
      return kept;
    } catch {
      question.signal.throwIfAborted();
      return undefined;
    }
  };
}

type Place = Pick<LiveModelsQuestion, 'pool' | 'key'>;

/** Lists by pool, the oldest first: all live equally long, so the expired ones stand in front. */
function createListCache(now: () => number) {
  const lists = new Map<string, { key: string; models: readonly UpstreamModel[]; untilMs: number }>();
  function dropExpired(): void {
    for (const [pool, { untilMs }] of lists) {
      if (untilMs > now() && lists.size <= REMEMBERED_LISTS) return;
      lists.delete(pool);
    }
  }
  return {
    find({ pool, key }: Place): readonly UpstreamModel[] | undefined {
      dropExpired();
      const list = lists.get(pool);
      return list?.key === key ? list.models : undefined;
    },
    keep({ pool, key }: Place, models: readonly UpstreamModel[]): void {
      lists.delete(pool);
      lists.set(pool, { key, models, untilMs: now() + FRESH_MS });
      dropExpired();
    },
  };
}

/** The models in front that are not more than may be kept of a list that anybody can have written. */
function firstOf(models: readonly UpstreamModel[]): readonly UpstreamModel[] {
  let bytes = 0;
  const tooMany = models.findIndex((model, index) => {
    bytes += Buffer.byteLength(JSON.stringify(model));
    return index >= USERS_MODELS || bytes > USERS_BYTES;
  });
  return tooMany < 0 ? models : models.slice(0, tooMany);
}

async function fetchModels(dialer: Dialer, question: LiveModelsQuestion): Promise<readonly UpstreamModel[]> {
  const { address, authorization, hop, signal } = question;
  const answer = await dialer.request({
    url: new URL(`${address.baseUrl}/models`),
    method: 'GET',
    headers: {
      accept: 'application/json',
      'accept-encoding': 'identity',
      ...authorization,
      ...(hop === null ? {} : { [HOP_HEADER]: hop }),
    },
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
