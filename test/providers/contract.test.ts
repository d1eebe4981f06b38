import { readdir } from 'node:fs/promises';
import { describe, expect, it } from '@jest/globals';
import { PROVIDER_IDS, PROVIDERS } from '../../src/providers/index.ts';
import type { Provider } from '../../src/providers/provider.ts';

/** Files of the folder that are no provider. */
const NOT_PROVIDERS = ['address.ts', 'index.ts', 'key-test.ts', 'provider.ts'];
const folder = new URL('../../src/providers/', import.meta.url);
const cases = PROVIDERS.map((provider) => [provider.id, provider] as const);

/** A made-up key in the form that the hint shows to people. */
function exampleKey(provider: Provider): string {
  return (provider.key.hint ?? '...').replace('...', 'Zq7Xw2Lm9Kd4Rt6Yb1Nc8Vf3Hj5Gs0PaQw2Er7Ty');
}

function withoutGroups(skeleton: string): string {
  const inner = skeleton.replace(/\([^()]*\)/g, 'g');
  return inner === skeleton ? skeleton : withoutGroups(inner);
}

/** Keys of a provider without a common form cannot be told apart from others. */
const withKnownFormat = PROVIDERS.filter((provider) => provider.key.hint !== null);

describe('the list of providers', () => {
  it('has the documented ids in the documented order, the demo last', () => {
    expect(PROVIDER_IDS.join(' ')).toBe(
      'openai anthropic huggingface cohere together perplexity groq openrouter ollama custom demo',
    );
  });

  it('holds every file of the folder, each once, under the id that is its file name', async () => {
    const files = (await readdir(folder)).filter((file) => !NOT_PROVIDERS.includes(file));
    expect(files.map((file) => file.replace(/\.ts$/, '')).sort()).toEqual([...PROVIDER_IDS].sort());
    for (const provider of PROVIDERS) {
      const module = (await import(new URL(`${provider.id}.ts`, folder).href)) as Record<string, unknown>;
      expect(module[provider.id]).toBe(provider);
    }
  });

  it('has no two providers of one name', () => {
    expect(new Set(PROVIDERS.map((provider) => provider.name)).size).toBe(PROVIDERS.length);
  });

  it('has no two providers that claim one model', () => {
    for (const model of PROVIDERS.flatMap((provider) => provider.models)) {
      const claiming = PROVIDERS.filter((provider) =>
        provider.modelPatterns.some((pattern) => pattern.test(model)),
      );
      expect(claiming.map((provider) => provider.id).slice(1)).toEqual([]);
    }
  });
});

describe.each(cases)('provider %s', (id, provider) => {
  it('has an id of lower-case letters, as storage, settings and model prefixes need it', () => {
    expect(id).toMatch(/^[a-z]{2,24}$/);
  });

  it('has a name that fits a label and every field of the contract', () => {
    expect(provider.name).toMatch(/^\S(.{0,38}\S)?$/);
    expect(Object.keys(provider).sort()).toEqual(
      'id name kind protocol baseUrl docsUrl key keyTest requiresEndpoint requiresKey modelPatterns models localOnly'
        .split(' ')
        .sort(),
    );
    expect(['llm', 'tool', 'git']).toContain(provider.kind);
  });

  it('has an https address without a trailing slash, or none because each key or local mode brings it', () => {
    if (provider.baseUrl === null) {
      expect(provider.requiresEndpoint || provider.localOnly).toBe(true);
      return;
    }
    expect(provider.requiresEndpoint).toBe(false);
    expect(provider.baseUrl).toMatch(/^https:\/\/[a-z0-9.-]+(\/[A-Za-z0-9._~-]+)*$/);
    expect(new URL(provider.baseUrl).href.replace(/\/$/, '')).toBe(provider.baseUrl);
  });

  it('tells where to get a key when it is a hosted service', () => {
    const isHosted = provider.baseUrl !== null;
    expect(provider.docsUrl !== null).toBe(isHosted);
    if (provider.docsUrl !== null) expect(new URL(provider.docsUrl).protocol).toBe('https:');
  });

  it('takes a key of the form that its hint shows, and its prefix is how such a key starts', () => {
    expect(exampleKey(provider)).toMatch(provider.key.pattern);
    expect(exampleKey(provider).startsWith(provider.key.prefix)).toBe(true);
    expect(provider.key.prefix === '').toBe(provider.key.hint === null);
  });

  it('refuses a key without its prefix, with anything before it, and the prefix alone', () => {
    if (provider.key.prefix === '') return;
    const example = exampleKey(provider);
    for (const wrong of [
      example.slice(provider.key.prefix.length),
      `x${example}`,
      provider.key.prefix,
      example.replace(provider.key.prefix, provider.key.prefix.toUpperCase()),
    ]) {
      expect(wrong).not.toMatch(provider.key.pattern);
    }
  });

  it('refuses keys that could not stand in a header, or were pasted with something around them', () => {
    const example = exampleKey(provider);
    for (const wrong of [
      ` ${example}`,
      `${example} `,
      `${example}\n`,
      `${example}\r\nx: y`,
      `${example}\0`,
      `${example}é`,
      `Bearer ${example}`,
    ]) {
      expect(wrong).not.toMatch(provider.key.pattern);
    }
  });

  it('refuses the keys of every other provider whose prefix differs', () => {
    if (provider.key.hint === null) return;
    for (const other of withKnownFormat.filter((one) => one.key.prefix !== provider.key.prefix)) {
      expect([other.id, provider.key.pattern.test(exampleKey(other))]).toEqual([other.id, false]);
    }
  });

  it('is tested at the address of its chats, by a call that carries the key in a header alone', () => {
    const { method, path, body, authorize, billed } = provider.keyTest;
    expect(path).toMatch(/^\/[a-z]+(\/[a-z]+)*$/);
    expect(method === 'POST').toBe(body !== undefined);
    // What makes a provider compute is what it charges for.
    expect(billed).toBe(method === 'POST');
    const headers = authorize('the-key');
    expect(Object.keys(headers)).toEqual(Object.keys(headers).map((name) => name.toLowerCase()));
    expect(Object.values(headers).filter((value) => value.endsWith('the-key'))).toHaveLength(1);
    expect(JSON.stringify([path, body])).not.toContain('the-key');
  });

  it('takes an empty key only where it requires none', () => {
    expect(provider.key.pattern.test('')).toBe(!provider.requiresKey);
  });

  it('has patterns that match the whole text, keep no state and cannot be made to run for long', () => {
    for (const pattern of [provider.key.pattern, ...provider.modelPatterns]) {
      expect(pattern.flags).toMatch(/^u?$/);
      expect(pattern.source).toMatch(/^\^.*\$$/);
      const skeleton = pattern.source.replace(/\\./g, 'c').replace(/\[[^\]]*\]/g, 'c');
      // An alternative outside a group would be anchored at one end only.
      expect(withoutGroups(skeleton)).not.toContain('|');
      // At most one open-ended repetition and no back reference: matching takes linear time.
      expect((skeleton.match(/[*+]|\{\d+,\}/g) ?? []).length).toBeLessThanOrEqual(1);
      expect(pattern.source).not.toMatch(/\\[1-9k]/);
    }
  });

  it('claims no model name with a vendor in front, which is how OpenRouter names models', () => {
    for (const name of provider.models.map((model) => `vendor/${model}`)) {
      expect(provider.modelPatterns.some((pattern) => pattern.test(name))).toBe(false);
    }
  });

  it('shows no model twice, and only models that it claims or that carry a vendor', () => {
    expect(new Set(provider.models).size).toBe(provider.models.length);
    for (const model of provider.models) {
      const isClaimed = provider.modelPatterns.some((pattern) => pattern.test(model));
      expect([model, isClaimed || model.includes('/')]).toEqual([model, true]);
    }
  });
});
