import { describe, expect, it } from '@jest/globals';
import {
  resolveRoute,
  type ResolveInput,
  type RoutableKey,
  type RoutablePool,
} from '../../../src/gateway/routing/resolve.ts';
import { PROVIDERS } from '../../../src/providers/index.ts';

const ANY_MODEL = { provider: 'openrouter', model: null, models: ['*'] };
const NOW = new Date('2026-01-01T00:00:00Z');

function key(id: string, overrides: Partial<RoutableKey> = {}): RoutableKey {
  return {
    id,
    label: null,
    enabled: true,
    expiresAt: null,
    cooldownUntil: null,
    isDecryptable: () => true,
    ...overrides,
  };
}

interface Changes extends Partial<ResolveInput<RoutablePool<RoutableKey>>> {
  /** Keys by provider. */
  personal?: Record<string, RoutableKey[]>;
  organization?: Record<string, RoutableKey[]>;
}

function decide({ personal = {}, organization = {}, ...overrides }: Changes) {
  const toPools = (scope: 'personal' | 'organization', keysByProvider: Record<string, RoutableKey[]>) =>
    Object.entries(keysByProvider).map(([name, keys]) => {
      const [provider = '', endpointSlug = null] = name.split(/:(.*)/s);
      return { scope, provider, endpointSlug, keys };
    });
  return resolveRoute<RoutableKey, RoutablePool<RoutableKey>>({
    model: 'gpt-4o',
    tier: 'starter',
    providers: PROVIDERS,
    pools: [...toPools('personal', personal), ...toPools('organization', organization)],
    listOf: () => ({ state: 'unreadable' }),
    system: { provider: 'openrouter', model: 'openai/gpt-4o-mini', models: ['openai/gpt-4o-mini', 'gpt-4o'] },
    policy: { preferredProvider: null },
    now: NOW,
    rotationIndex: () => 0,
    ...overrides,
  }).decision;
}

describe('choosing the provider', () => {
  it('refuses an ambiguous name, and names what would not be ambiguous', () => {
    const personal = { 'custom:one.example': [key('a')], 'custom:two.example': [key('b')] };
    expect(decide({ model: 'custom/m', personal })).toEqual({
      kind: 'refused',
      code: 'ambiguous_model',
      provider: null,
      model: 'custom/m',
      candidates: ['custom:one.example/m', 'custom:two.example/m'],
    });
  });

  it('uses the keys of the named endpoint only', () => {
    const personal = { 'custom:one.example': [key('a'), key('b')], 'custom:two.example': [key('c')] };
    const decision = decide({ model: 'custom:one.example/m', personal });
    expect(decision.kind === 'pool' ? decision.keys.map(({ id }) => id) : decision.kind).toEqual(['a', 'b']);
    const disabled = { ...personal, 'custom:one.example': [key('a', { enabled: false })] };
    expect(decide({ model: 'custom:one.example/m', personal: disabled })).toMatchObject({
      kind: 'refused',
      code: 'no_usable_key',
    });
  });

  it('refuses the slug of an endpoint that the caller does not have', () => {
    expect(decide({ model: 'custom:three.example/m' })).toMatchObject({
      kind: 'refused',
      code: 'model_not_found',
    });
  });

  it.each([undefined, 'default'])('serves the model name %s with the default model', (model) => {
    expect(decide({ model })).toMatchObject({ kind: 'system', model: 'openai/gpt-4o-mini' });
  });

  it('refuses a missing model without a default', () => {
    expect(decide({ model: undefined, system: null })).toMatchObject({
      kind: 'refused',
      code: 'model_missing',
    });
  });
});

describe('choosing the key', () => {
  it('rotates over usable keys only, in pool order', () => {
    const pool = [
      key('a'),
      key('b', { enabled: false }),
      key('c'),
      key('d', { isDecryptable: () => false }),
      key('e'),
    ];
    const orders = [0, 1, 2, 3, 4, 5].map((index) => {
      const decision = decide({ personal: { openai: pool }, rotationIndex: () => index });
      return decision.kind === 'pool' ? decision.keys.map(({ id }) => id).join('') : decision.kind;
    });
    expect(orders).toEqual(['ace', 'cea', 'eac', 'ace', 'cea', 'eac']);
  });

  it('names the reason for each skipped key', () => {
    const pool = [
      key('a', { enabled: false }),
      key('b', { expiresAt: '2025-12-31T23:59:59Z' }),
      key('c', { cooldownUntil: new Date('2026-01-01T00:00:01Z') }),
      key('d', { isDecryptable: () => false }),
      key('e', { expiresAt: '2026-01-01T00:00:01Z', cooldownUntil: new Date('2025-12-31T00:00:00Z') }),
    ];
    expect(decide({ personal: { openai: pool } })).toMatchObject({
      kind: 'pool',
      keys: [{ id: 'e' }],
      skipped: [
        { keyId: 'a', reason: 'disabled' },
        { keyId: 'b', reason: 'expired' },
        { keyId: 'c', reason: 'set_aside' },
        { keyId: 'd', reason: 'undecryptable' },
      ],
    });
  });

  it('never replaces an unusable pool by the system, and reports undecryptable keys', () => {
    const inCooldown = key('a', { cooldownUntil: new Date('2026-01-02T00:00:00Z') });
    expect(decide({ personal: { openai: [inCooldown] } })).toMatchObject({
      kind: 'refused',
      code: 'no_usable_key',
    });
    const undecryptable = key('b', { isDecryptable: () => false });
    expect(decide({ personal: { openai: [inCooldown, undecryptable] } })).toMatchObject({
      kind: 'refused',
      code: 'key_undecryptable',
    });
  });

  it('uses only the personal pool when there is one, else the organization’s', () => {
    const organization = { openai: [key('o')] };
    expect(decide({ organization })).toMatchObject({
      kind: 'pool',
      pool: { scope: 'organization' },
      keys: [{ id: 'o' }],
    });
    const personal = { openai: [key('p', { enabled: false })] };
    expect(decide({ organization, personal })).toMatchObject({ kind: 'refused', code: 'no_usable_key' });
  });

  it('needs no model list below Starter, also where several pools serve a model', () => {
    const personal = { groq: [key('a')], together: [key('b')] };
    const result = decide({ model: 'openai/gpt-oss-120b', personal, tier: 'free', system: ANY_MODEL });
    expect(result).toMatchObject({ kind: 'system', reason: 'tier_required' });
  });

  it.each([
    ['OpenRouter/openai/gpt-4o', { openrouter: [key('a')] }, { kind: 'system', model: 'openai/gpt-4o' }],
    ['openai/gpt-4o', { openai: [key('a')] }, { kind: 'system', model: 'openai/gpt-4o' }],
    // The name of a user's endpoint is for no other provider.
    ['custom:h.example/m', { 'custom:h.example': [key('a')] }, { kind: 'refused', code: 'model_not_found' }],
    ['custom/m', { 'custom:h.example': [key('a')] }, { kind: 'refused', code: 'model_not_found' }],
    [
      'custom/m',
      { 'custom:a': [key('a')], 'custom:b': [key('b')] },
      { kind: 'refused', code: 'model_not_found' },
    ],
  ])('below Starter decides for %s as the system names it', (model, personal, expected) => {
    expect(decide({ model, personal, tier: 'free', system: ANY_MODEL })).toMatchObject(expected);
  });

  it('skips the personal pool below Starter and names the reason', () => {
    const personal = { openai: [key('a')] };
    expect(decide({ personal, tier: 'trial' })).toMatchObject({
      kind: 'system',
      model: 'gpt-4o',
      reason: 'tier_required',
    });
  });
});

describe('the system default', () => {
  it('serves only the models of its list', () => {
    expect(decide({ model: 'openai/o9' })).toMatchObject({ kind: 'refused', code: 'model_not_found' });
    const any = { provider: 'openrouter', model: null, models: ['*'] };
    expect(decide({ model: 'openai/o9', system: any })).toMatchObject({ kind: 'system', model: 'openai/o9' });
  });

  it.each([
    'openai/gpt-4o:online',
    'openai/gpt-4o:free:online',
    'openai/gpt-4o:ONLINE:nitro',
    'openai/gpt-4o:nitro',
    'openai/gpt-4o:floor',
    '@preset/mine',
    'openai/gpt-4o@preset/mine',
    'openrouter/openai/gpt-4o:online',
    'openai/gpt-4o:online ',
    'openai/gpt-4o:online\u00a0',
    'openai/gpt-4o:online/',
    'openai/gpt-4o:online?',
    '@preset%2Fmine',
    '../chat',
    'openai/../../x',
    'a//b',
  ])('does not serve %s under "*", since it selects more than a model', (model) => {
    const system = { provider: 'openrouter', model: null, models: ['*'] };
    expect(decide({ model, system })).toMatchObject({ kind: 'refused', code: 'model_not_found' });
    const named = { ...system, models: ['*', model.replace(/^openrouter\//, '')] };
    expect(decide({ model, system: named })).toMatchObject({ kind: 'system' });
    const personal = { openrouter: [key('a')] };
    expect(decide({ model, system, personal })).toMatchObject({ kind: 'pool' });
  });

  it.each(['llama3.2:latest', 'openai/gpt-oss-20b:free', 'ft:gpt-4o:acme::online-shop'])(
    'serves %s under "*"',
    (model) => {
      const system = { provider: 'openrouter', model: null, models: ['*'] };
      expect(decide({ model, system })).toMatchObject({ kind: 'system', model });
    },
  );

  it('strips its provider prefix once', () => {
    expect(decide({ model: 'openrouter/openrouter/bodybuilder', system: ANY_MODEL })).toMatchObject({
      kind: 'system',
      model: 'openrouter/bodybuilder',
    });
  });

  it('strips its provider prefix', () => {
    expect(decide({ model: 'openrouter/openai/gpt-4o-mini' })).toMatchObject({
      kind: 'system',
      model: 'openai/gpt-4o-mini',
    });
  });

  it('is refused when none is configured', () => {
    expect(decide({ system: null })).toMatchObject({ kind: 'refused', code: 'no_default_provider' });
  });
});
