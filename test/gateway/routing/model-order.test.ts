import { describe, expect, it } from '@jest/globals';
import {
  chooseModel,
  createModelNames,
  toUniqueName,
  type KnownList,
  type NamedPool,
} from '../../../src/gateway/routing/model-order.ts';
import {
  resolveRoute,
  type RoutableKey,
  type RoutablePool,
  type SystemDefault,
} from '../../../src/gateway/routing/resolve.ts';
import { PROVIDERS } from '../../../src/providers/index.ts';
import { DOCUMENTED_MODELS } from './documented-models.ts';

const LOCAL = 'llm.example-8000';
const OTHER = 'gpu.example-3f1a';
const ENDPOINT_MODELS: Readonly<Record<string, readonly string[]>> = {
  [`custom:${LOCAL}`]: ['qwen3', 'shared', 'gpt-4o-proxy'],
  [`custom:${OTHER}`]: ['shared', 'Mistral-Small'],
  [`ollama:${LOCAL}`]: ['llama3.2:latest'],
  'ollama:operator': ['phi4:latest'],
  'custom:lists-ollama': ['ollama/listed-by-custom'],
};

/** `openai`, or `custom:<slug>`. */
function toPool(name: string): NamedPool {
  const [provider = '', endpointSlug = null] = name.split(/:(.*)/s);
  return { provider, endpointSlug };
}

const unread = (): KnownList => ({ state: 'unread' });
const unreadable = (): KnownList => ({ state: 'unreadable' });
const read = (models: readonly string[]): KnownList => ({ state: 'read', names: createModelNames(models) });

function listedModels({ provider, endpointSlug }: NamedPool): readonly string[] {
  if (endpointSlug !== null) return ENDPOINT_MODELS[`${provider}:${endpointSlug}`] ?? [];
  return DOCUMENTED_MODELS[provider]?.models ?? [];
}

interface Changes {
  system?: string;
  systemModel?: string | null;
  preferred?: string;
  listOf?: (pool: NamedPool) => KnownList;
}

/** @param keys pool names, separated by blanks. @returns the choice as one text, and the pools whose lists decide. */
function choose(
  model: string,
  keys: string,
  { system, systemModel = null, preferred, listOf }: Changes = {},
) {
  const { choice, dependsOn } = chooseModel({
    model,
    providers: PROVIDERS,
    pools: keys.split(' ').filter(Boolean).map(toPool),
    listOf: listOf ?? ((pool) => read(listedModels(pool))),
    system: system === undefined ? null : { provider: system, model: systemModel },
    preferredProvider: preferred ?? null,
  });
  return { text: toText(choice), dependsOn: dependsOn.length };
}

function toText(choice: ReturnType<typeof chooseModel<NamedPool>>['choice']): string {
  switch (choice.kind) {
    case 'pool':
      return `${toUniqueName(choice.pool, '').slice(0, -1)} ${choice.model}`;
    case 'system':
      return `system ${choice.model}`;
    case 'ambiguous':
      return `ambiguous ${choice.pools.map((pool) => toUniqueName(pool, choice.model)).join(' ')}`;
    default:
      return choice.kind;
  }
}

const KEY: RoutableKey = {
  ...{ id: 'key', label: null, enabled: true, expiresAt: null, cooldownUntil: null },
  isDecryptable: () => true,
};

/** @returns payer, provider, endpoint and model as one text, or the code of the refusal. */
function decide(model: string, keys: string, system: SystemDefault | null): string {
  const pools = keys.split(' ').filter(Boolean).map(toPool);
  const { decision } = resolveRoute<RoutableKey, RoutablePool<RoutableKey>>({
    ...{ model, tier: 'starter', providers: PROVIDERS, system, rotationIndex: () => 0 },
    pools: pools.map((pool) => ({ ...pool, scope: 'personal', keys: [KEY] })),
    listOf: (pool) => read(listedModels(pool)),
    policy: { preferredProvider: null },
    now: new Date(),
  });
  switch (decision.kind) {
    case 'pool':
      return `${decision.pool.scope} ${toUniqueName(decision.pool, '').slice(0, -1)} ${decision.model}`;
    case 'system':
      return `system ${decision.provider} ${decision.model} ${decision.reason}`;
    case 'refused':
      return decision.code;
  }
}

/** The systems of the tables, by the column of the payer. */
const toSystems = (provider: string): (SystemDefault | null)[] => [
  { provider, model: null, models: ['*'] },
  { provider, model: null, models: ['gpt-4o'] },
  null,
];

/** Name, keys, choice, and the payer with each of three systems where no key of the user pays. */
type Row = [model: string, keys: string, choice: string, payers?: string[]];

describe('the pool and the model that a name selects', () => {
  const ROWS: Row[] = [
    // An endpoint of the caller.
    [`custom:${LOCAL}/qwen3`, `custom:${LOCAL} custom:${OTHER}`, `custom:${LOCAL} qwen3`],
    [`custom:${OTHER}/qwen3`, `custom:${LOCAL} custom:${OTHER}`, `custom:${OTHER} qwen3`],
    [`CUSTOM:${LOCAL.toUpperCase()}/QWEN3`, `custom:${LOCAL}`, `custom:${LOCAL} qwen3`],
    [`custom:unknown.example/qwen3`, `custom:${LOCAL}`, 'unknown_endpoint'],
    [`custom:unknown.example/qwen3`, 'openrouter', 'unknown_endpoint'],
    ['custom/not-listed', `custom:${LOCAL}`, `custom:${LOCAL} not-listed`],
    ['custom/qwen3', `custom:${LOCAL} custom:${OTHER}`, `custom:${LOCAL} qwen3`],
    ['custom/mistral-small', `custom:${LOCAL} custom:${OTHER}`, `custom:${OTHER} Mistral-Small`],
    [
      'custom/shared',
      `custom:${LOCAL} custom:${OTHER}`,
      `ambiguous custom:${LOCAL}/shared custom:${OTHER}/shared`,
    ],
    [
      'custom/not-listed',
      `custom:${LOCAL} custom:${OTHER}`,
      `ambiguous custom:${LOCAL}/not-listed custom:${OTHER}/not-listed`,
    ],
    ['ollama/phi4:latest', `ollama:${LOCAL} ollama:operator`, 'ollama:operator phi4:latest'],
    ['ollama:operator/phi4:latest', `ollama:${LOCAL} ollama:operator`, 'ollama:operator phi4:latest'],
    // A provider's segment.
    ['openai/gpt-4o', 'openai', 'openai gpt-4o'],
    ['openai/gpt-4o', 'openai openrouter', 'openai gpt-4o'],
    ['OpenAI/GPT-4o', 'openai', 'openai gpt-4o'],
    ['openrouter/openai/gpt-4o', 'openrouter openai', 'openrouter openai/gpt-4o'],
    ['openrouter/auto', 'openrouter', 'openrouter openrouter/auto'],
    ['perplexity/sonar', 'perplexity', 'perplexity perplexity/sonar'],
    ['perplexity/perplexity/sonar', 'perplexity', 'perplexity perplexity/sonar'],
    ['groq/compound', 'groq', 'groq groq/compound'],
    ['groq/compound-mini', 'groq together', 'groq groq/compound-mini'],
    ['groq/groq/compound', 'groq', 'groq groq/compound'],
    ['groq/openai/gpt-oss-120b', 'groq together openai', 'groq openai/gpt-oss-120b'],
    ['groq/whisper-large-v3', 'groq', 'groq whisper-large-v3'],
    ['anthropic/claude-haiku-4-5', 'anthropic perplexity', 'anthropic claude-haiku-4-5'],
    // A provider's pattern.
    ['gpt-4o', 'openai', 'openai gpt-4o'],
    ['GPT-4o', 'openai openrouter', 'openai gpt-4o'],
    ['ft:gpt-4o:Acme::Id', 'openai openrouter', 'openai ft:gpt-4o:Acme::Id'],
    ['claude-new-model', `anthropic custom:${LOCAL}`, 'anthropic claude-new-model'],
    ['command-r-08-2024', 'cohere groq', 'cohere command-r-08-2024'],
    // The caller's lists.
    ['openai/gpt-oss-120b', 'groq', 'groq openai/gpt-oss-120b'],
    ['openai/gpt-oss-120b', 'groq openai', 'groq openai/gpt-oss-120b'],
    ['openai/gpt-oss-120b', 'groq openrouter huggingface', 'groq openai/gpt-oss-120b'],
    ['openai/gpt-oss-120b', 'openrouter huggingface', 'openrouter openai/gpt-oss-120b'],
    ['openai/gpt-oss-120b', 'huggingface', 'huggingface openai/gpt-oss-120b'],
    ['openai/gpt-oss-120b:groq', 'huggingface', 'huggingface openai/gpt-oss-120b:groq'],
    [
      'openai/gpt-oss-120b',
      'groq together',
      'ambiguous groq/openai/gpt-oss-120b together/openai/gpt-oss-120b',
    ],
    [
      'meta-llama/Llama-3.3-70B-Instruct-Turbo',
      'together openrouter',
      'together meta-llama/Llama-3.3-70B-Instruct-Turbo',
    ],
    [
      'meta-llama/llama-3.3-70b-instruct-turbo',
      'together',
      'together meta-llama/Llama-3.3-70B-Instruct-Turbo',
    ],
    ['qwen/qwen3-32b', 'groq together', 'groq qwen/qwen3-32b'],
    ['~anthropic/claude-sonnet-latest', 'anthropic openrouter', 'openrouter ~anthropic/claude-sonnet-latest'],
    ['openai/gpt-5.1', 'perplexity', 'perplexity openai/gpt-5.1'],
    ['gpt-4o-proxy', `custom:${LOCAL} openrouter`, `custom:${LOCAL} gpt-4o-proxy`],
    ['shared', `custom:${LOCAL} custom:${OTHER}`, `ambiguous custom:${LOCAL}/shared custom:${OTHER}/shared`],
    // The rest of a segment that the provider does not list.
    ['openai/unreleased', 'openai openrouter', 'openai unreleased'],
    ['groq/unreleased', 'groq', 'groq unreleased'],
    // A router, else no key.
    ['vendor/unlisted', 'openrouter groq', 'openrouter vendor/unlisted'],
    ['gpt-4o', 'openrouter groq', 'openrouter gpt-4o'],
    [
      'gpt-4o',
      'groq together',
      'none',
      ['system openrouter gpt-4o no_key', 'system openrouter gpt-4o no_key', 'no_default_provider'],
    ],
    [
      'vendor/unlisted',
      'huggingface',
      'none',
      ['system openrouter vendor/unlisted no_key', 'model_not_found', 'no_default_provider'],
    ],
    [
      'openai/gpt-4o',
      '',
      'none',
      ['system openrouter openai/gpt-4o no_key', 'model_not_found', 'no_default_provider'],
    ],
    [
      'custom/qwen3',
      'groq',
      'none',
      ['system openrouter custom/qwen3 no_key', 'model_not_found', 'no_default_provider'],
    ],
  ];

  it.each(ROWS)('%s with keys for %s: %s', (model, keys, expected) => {
    expect(choose(model, keys).text).toBe(expected);
  });

  const REFUSALS: Record<string, string> = {
    ambiguous: 'ambiguous_model',
    unknown_endpoint: 'model_not_found',
  };
  it.each(
    ROWS.map(([model, keys, choice, payers]) => {
      const always = REFUSALS[choice.split(' ')[0] ?? ''] ?? `personal ${choice}`;
      return [model, keys, payers ?? [always, always, always]] as const;
    }),
  )(
    '%s with keys for %s: %j is the payer with a system of any model, of a list, and without one',
    (model, keys, expected) => {
      expect(toSystems('openrouter').map((system) => decide(model, keys, system))).toEqual(expected);
    },
  );

  it.each(Object.entries(DOCUMENTED_MODELS))(
    'serves every documented model of %s with its only key, by its name and by its listed id',
    (provider, { models }) => {
      for (const model of models) {
        expect(choose(model, provider).text).toBe(`${provider} ${model}`);
        expect(choose(toUniqueName(toPool(provider), model), provider).text).toBe(`${provider} ${model}`);
      }
    },
  );

  it('serves the listed id of every documented model with its provider, whatever other keys there are', () => {
    const all = Object.keys(DOCUMENTED_MODELS).join(' ');
    for (const [provider, { models }] of Object.entries(DOCUMENTED_MODELS)) {
      for (const model of models) {
        const listedId = toUniqueName(toPool(provider), model);
        expect([listedId, choose(listedId, all).text]).toEqual([listedId, `${provider} ${model}`]);
      }
    }
  });
});

describe('the catalogue of every provider', () => {
  const catalogued = PROVIDERS.filter(({ models }) => models.length > 0);
  const all = catalogued.map(({ id }) => id).join(' ');

  it.each(catalogued)('of $id selects the provider, which receives its spelling', ({ id, models }) => {
    const listOf = unreadable;
    for (const model of models) {
      const expected = `${id} ${model}`;
      const listedId = toUniqueName(toPool(id), model);
      expect(choose(model, id, { listOf }).text).toBe(expected);
      for (const name of [listedId, listedId.toUpperCase(), listedId.toLowerCase()]) {
        expect([name, choose(name, id, { listOf }).text]).toEqual([name, expected]);
        expect([name, choose(name, all, { listOf }).text]).toEqual([name, expected]);
        expect([name, choose(name, '', { system: id }).text]).toEqual([name, `system ${model}`]);
      }
    }
  });

  it('is empty where the model depends on the endpoint', () => {
    const others = PROVIDERS.filter((provider) => !catalogued.includes(provider));
    expect(others.map(({ requiresEndpoint }) => requiresEndpoint)).toEqual(others.map(() => true));
  });
});

describe('the provider that only the system serves', () => {
  it.each([
    ['openai/gpt-4o', '', 'openai', 'system gpt-4o'],
    ['openrouter/auto', '', 'openrouter', 'system openrouter/auto'],
    ['custom/qwen3', '', 'custom', 'system qwen3'],
    ['custom:operator/qwen3', `custom:${LOCAL}`, 'custom', 'system qwen3'],
    ['custom/qwen3', `custom:${LOCAL}`, 'custom', `custom:${LOCAL} qwen3`],
    ['openrouter/openrouter/auto', '', 'openrouter', 'system openrouter/auto'],
    // Its names go to no router of the caller.
    ['gpt-4o', 'openrouter', 'openai', 'system gpt-4o'],
    ['gpt-4o', 'openrouter', 'groq', 'openrouter gpt-4o'],
    ['demo', 'openrouter groq', 'demo', 'system demo'],
    ['claude-haiku-4-5', 'openrouter', 'anthropic', 'system claude-haiku-4-5'],
    // In any letter case, as its catalogue or its patterns spell it.
    ['GPT-4o', '', 'openai', 'system gpt-4o'],
    ['GPT-4o', 'openrouter groq', 'openai', 'system gpt-4o'],
    ['openai/GPT-4o', '', 'openai', 'system gpt-4o'],
    ['OpenAI/GPT-Unreleased', 'openrouter', 'openai', 'system gpt-unreleased'],
    ['GPT-Unreleased', '', 'openai', 'system gpt-unreleased'],
    ['openai/ft:GPT-4o:Acme::Id', '', 'openai', 'system ft:GPT-4o:Acme::Id'],
    ['Groq/Compound', '', 'groq', 'system groq/compound'],
    ['groq/OpenAI/GPT-OSS-120b', '', 'groq', 'system openai/gpt-oss-120b'],
    [
      'meta-llama/llama-3.3-70b-instruct-turbo',
      '',
      'together',
      'system meta-llama/Llama-3.3-70B-Instruct-Turbo',
    ],
    ['openai/Unknown-Name', '', 'openai', 'system Unknown-Name'],
    ['claude-haiku-4-5', 'openrouter anthropic', 'anthropic', 'anthropic claude-haiku-4-5'],
    [
      'ollama/listed-by-custom',
      'custom:lists-ollama',
      'ollama',
      'custom:lists-ollama ollama/listed-by-custom',
    ],
    // What one of the caller's keys lists is never paid by the system.
    ['openai/gpt-4o', 'openrouter', 'openai', 'openrouter openai/gpt-4o'],
    ['openai/gpt-oss-120b', 'groq', 'openai', 'groq openai/gpt-oss-120b'],
    ['openai/o9', 'groq', 'openai', 'system o9'],
  ])('%s with keys for "%s" and %s as the system: %s', (model, keys, system, expected) => {
    expect(choose(model, keys, { system }).text).toBe(expected);
    const [kind, chosen] = expected.split(' ');
    if (kind !== 'system') return;
    const [any, list] = toSystems(system);
    expect(decide(model, keys, any ?? null)).toBe(`system ${system} ${chosen} no_key`);
    expect(decide(model, keys, list ?? null)).toBe(
      chosen === 'gpt-4o' ? `system ${system} gpt-4o no_key` : 'model_not_found',
    );
  });
});

describe('the default model of the system', () => {
  it.each([
    ['vendor/default', 'openrouter', 'openrouter', 'openrouter vendor/default'],
    ['vendor/default', 'openrouter', 'together', 'system vendor/default'],
    ['vendor/default', `custom:${LOCAL}`, 'custom', 'system vendor/default'],
    ['vendor/default', 'custom:operator', 'custom', 'custom:operator vendor/default'],
    ['vendor/default', '', 'openrouter', 'system vendor/default'],
  ])('%s with keys for "%s" and %s as the system: %s', (systemModel, keys, system, expected) => {
    expect(choose(systemModel, keys, { system, systemModel }).text).toBe(expected);
  });
});

describe('two endpoints with one slug', () => {
  // `https://h` and `https://h/v1`.
  const both = `custom:${LOCAL} custom:${LOCAL}`;
  const listsOf = (...lists: KnownList[]) => {
    const byPool = new Map<NamedPool, KnownList>();
    return (pool: NamedPool) =>
      byPool.get(pool) ?? byPool.set(pool, lists[byPool.size] ?? unread()).get(pool) ?? unread();
  };

  it.each<[string, KnownList, KnownList, boolean]>([
    ['one lists the model', read(['m']), read([]), true],
    ['both list the model', read(['m']), read(['m']), false],
    ['none lists the model', read([]), read([]), false],
    ['the list of one cannot be read', read(['m']), unreadable(), false],
    ['the list of one cannot be read, the other does not list the model', unreadable(), read([]), false],
    ['the list of one was never read, the other does not list the model', unread(), read([]), false],
  ])('are distinguished by their lists: %s', (_name, first, second, isChosen) => {
    const { text } = choose(`custom:${LOCAL}/m`, both, { listOf: listsOf(first, second) });
    expect(text).toBe(isChosen ? `custom:${LOCAL} m` : `ambiguous custom:${LOCAL}/m custom:${LOCAL}/m`);
  });
});

describe('the preferred provider', () => {
  it.each([
    ['openai/gpt-oss-120b', 'groq together', 'together openai/gpt-oss-120b'],
    ['openai/gpt-oss-120b', 'groq openrouter', 'groq openai/gpt-oss-120b'],
    ['vendor/unlisted', 'groq together', 'together vendor/unlisted'],
    ['gpt-4o', 'openai together', 'openai gpt-4o'],
  ])('%s with keys for %s: %s', (model, keys, expected) => {
    expect(choose(model, keys, { preferred: 'together' }).text).toBe(expected);
  });
});

describe('lists that are not known', () => {
  it('of one endpoint do not move a prompt to the other', () => {
    const listOf = ({ endpointSlug }: NamedPool) => (endpointSlug === LOCAL ? read(['qwen3']) : unreadable());
    const candidates = `custom:${LOCAL}/qwen3 custom:${OTHER}/qwen3`;
    expect(choose('custom/qwen3', `custom:${LOCAL} custom:${OTHER}`, { listOf }).text).toBe(
      `ambiguous ${candidates}`,
    );
  });

  it('of one endpoint draw no prompt to it that the other does not list', () => {
    const listOf = ({ endpointSlug }: NamedPool) => (endpointSlug === LOCAL ? unreadable() : read(['qwen3']));
    expect(choose('custom/not-listed', `custom:${LOCAL} custom:${OTHER}`, { listOf }).text).toBe(
      `ambiguous custom:${LOCAL}/not-listed custom:${OTHER}/not-listed`,
    );
  });

  it('are read again beside a request that they decide', () => {
    expect(choose('groq/unreleased', 'groq', { listOf: unreadable }).dependsOn).toBe(1);
    expect(choose('groq/whisper-large-v3', 'groq').dependsOn).toBe(1);
    expect(choose('groq/compound', 'groq').dependsOn).toBe(0);
  });

  it.each([
    [`custom:${LOCAL}/qwen3`, `custom:${LOCAL} custom:${OTHER}`],
    ['custom/qwen3', `custom:${LOCAL}`],
    ['openai/gpt-4o', 'openai openrouter'],
    ['groq/compound', 'groq together'],
    ['gpt-4o', 'openai openrouter groq'],
  ])('are not needed for %s with keys for %s', (model, keys) => {
    expect(choose(model, keys, { listOf: unread }).dependsOn).toBe(0);
  });

  it.each([
    ['custom/qwen3', `custom:${LOCAL} custom:${OTHER}`, 2],
    ['openai/gpt-oss-120b', 'groq openai', 2],
    ['openai/unreleased', 'openai', 1],
    ['vendor/unlisted', 'openrouter', 1],
  ])('decide about %s with keys for %s', (model, keys, count) => {
    expect(choose(model, keys, { listOf: unread }).dependsOn).toBe(count);
  });

  it.each([
    ['openai/unreleased', 'openai openrouter', 'openai unreleased'],
    ['openai/gpt-oss-120b', 'groq', 'groq openai/gpt-oss-120b'],
    ['openai/gpt-oss-120b', 'openai groq', 'openai gpt-oss-120b'],
    [
      'custom/qwen3',
      `custom:${LOCAL} custom:${OTHER}`,
      `ambiguous custom:${LOCAL}/qwen3 custom:${OTHER}/qwen3`,
    ],
  ])(
    'are replaced by the catalogue when they cannot be read: %s with keys for %s: %s',
    (model, keys, expected) => {
      expect(choose(model, keys, { listOf: unreadable }).text).toBe(expected);
    },
  );
});

describe('letter case', () => {
  it('is that of a list that was read, also for names that match a pattern', () => {
    const listOf = () => read(['GPT-image', 'gpt-4o']);
    expect(choose('openai/gpt-IMAGE', 'openai', { listOf }).text).toBe('openai GPT-image');
    expect(choose('GPT-4O', 'openai', { listOf }).text).toBe('openai gpt-4o');
    // A fine-tuned model's name has parts that its owner chose.
    expect(choose('openai/ft:GPT-4o:Acme::Id', 'openai', { listOf: unreadable }).text).toBe(
      'openai ft:GPT-4o:Acme::Id',
    );
  });

  it('is folded only when the match is unique', () => {
    const names = createModelNames(['Model', 'model', 'Other']);
    expect([names.find('model'), names.find('MODEL'), names.find('OTHER'), names.find('none')]).toEqual([
      'model',
      undefined,
      'Other',
      undefined,
    ]);
  });
});
