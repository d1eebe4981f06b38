import { describe, expect, it } from '@jest/globals';
import { resolveRoute, type RoutableKey, type ResolveInput } from '../../../src/gateway/routing/resolve.ts';
import { PROVIDERS } from '../../../src/providers/index.ts';

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

function decide(overrides: Partial<ResolveInput<RoutableKey>>) {
  return resolveRoute<RoutableKey>({
    model: 'gpt-4o',
    tier: 'starter',
    providers: PROVIDERS,
    personal: new Map(),
    organization: new Map(),
    system: { provider: 'openrouter', model: 'openai/gpt-4o-mini', models: ['openai/gpt-4o-mini', 'gpt-4o'] },
    policy: { preferredProvider: null },
    unhealthyProviders: new Set(),
    now: NOW,
    rotationIndex: () => 0,
    ...overrides,
  });
}

const pools = (byProvider: Record<string, RoutableKey[]>) => new Map(Object.entries(byProvider));

describe('choosing the provider', () => {
  it('strips only the first segment, when it names a provider with a key in any state', () => {
    const personal = pools({ openrouter: [key('a')] });
    expect(decide({ model: 'openrouter/openai/gpt-4o', personal })).toMatchObject({
      provider: 'openrouter',
      model: 'openai/gpt-4o',
    });
    const disabled = pools({ openai: [key('a', { enabled: false })] });
    expect(decide({ model: 'openai/gpt-4o', personal: disabled })).toMatchObject({
      kind: 'refused',
      provider: 'openai',
      code: 'no_usable_key',
    });
  });

  it('keeps a first segment that names a provider without a key, since OpenRouter uses such model names', () => {
    const personal = pools({ openrouter: [key('a')] });
    expect(decide({ model: 'openai/gpt-4o', personal })).toMatchObject({
      provider: 'openrouter',
      model: 'openai/gpt-4o',
    });
  });

  it('prefers the catalogue, then OpenRouter, then the preferred provider, then the system', () => {
    const all = { openai: [key('a')], openrouter: [key('b')], custom: [key('c')] };
    const policy = { preferredProvider: 'custom' };
    expect(decide({ personal: pools(all), policy })).toMatchObject({ provider: 'openai' });
    expect(decide({ personal: pools({ ...all, openai: [] }), policy })).toMatchObject({
      provider: 'openrouter',
    });
    expect(decide({ personal: pools({ custom: all.custom }), policy })).toMatchObject({ provider: 'custom' });
    expect(decide({ policy })).toMatchObject({ kind: 'system', provider: 'openrouter', reason: 'no_key' });
  });

  it('skips an unhealthy provider unless the request names it', () => {
    const input = {
      personal: pools({ openai: [key('a')], openrouter: [key('b')] }),
      unhealthyProviders: new Set(['openai']),
    };
    expect(decide(input)).toMatchObject({ provider: 'openrouter' });
    expect(decide({ ...input, model: 'openai/gpt-4o' })).toMatchObject({ provider: 'openai' });
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
      const decision = decide({ personal: pools({ openai: pool }), rotationIndex: () => index });
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
    expect(decide({ personal: pools({ openai: pool }) })).toMatchObject({
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
    expect(decide({ personal: pools({ openai: [inCooldown] }) })).toMatchObject({
      kind: 'refused',
      code: 'no_usable_key',
    });
    const undecryptable = key('b', { isDecryptable: () => false });
    expect(decide({ personal: pools({ openai: [inCooldown, undecryptable] }) })).toMatchObject({
      kind: 'refused',
      code: 'key_undecryptable',
    });
  });

  it('uses only the personal pool when there is one, else the organization’s', () => {
    const organization = pools({ openai: [key('o')] });
    expect(decide({ organization })).toMatchObject({
      kind: 'pool',
      scope: 'organization',
      keys: [{ id: 'o' }],
    });
    const personal = pools({ openai: [key('p', { enabled: false })] });
    expect(decide({ organization, personal })).toMatchObject({ kind: 'refused', code: 'no_usable_key' });
  });

  it('skips the personal pool below Starter and names the reason', () => {
    const personal = pools({ openai: [key('a')] });
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
  ])('does not serve %s under "*", since it selects more than a model', (model) => {
    const system = { provider: 'openrouter', model: null, models: ['*'] };
    expect(decide({ model, system })).toMatchObject({ kind: 'refused', code: 'model_not_found' });
    const named = { ...system, models: ['*', model.replace(/^openrouter\//, '')] };
    expect(decide({ model, system: named })).toMatchObject({ kind: 'system' });
    const personal = pools({ openrouter: [key('a')] });
    expect(decide({ model, system, personal })).toMatchObject({ kind: 'pool' });
  });

  it.each(['llama3.2:latest', 'openai/gpt-oss-20b:free', 'ft:gpt-4o:acme::online-shop'])(
    'serves %s under "*"',
    (model) => {
      const system = { provider: 'openrouter', model: null, models: ['*'] };
      expect(decide({ model, system })).toMatchObject({ kind: 'system', model });
    },
  );

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
