import { readdir } from 'node:fs/promises';
import { describe, expect, it } from '@jest/globals';
import { custom } from '../../src/providers/custom.ts';
import { PROVIDER_IDS, PROVIDERS } from '../../src/providers/index.ts';
import { ollama } from '../../src/providers/ollama.ts';
import { SURFACE_PATHS, type Provider } from '../../src/providers/provider.ts';

/** Files of the folder that do not define a provider. */
const NOT_PROVIDERS = ['address.ts', 'index.ts', 'key-test.ts', 'protocol-error.ts', 'provider.ts'];
const folder = new URL('../../src/providers/', import.meta.url);
const cases = PROVIDERS.map((provider) => [provider.id, provider] as const);

/** An invented key in the format of the hint. */
function exampleKey(provider: Provider): string {
  return (provider.key.hint ?? '...').replace('...', 'Zq7Xw2Lm9Kd4Rt6Yb1Nc8Vf3Hj5Gs0PaQw2Er7Ty');
}

function withoutGroups(skeleton: string): string {
  const inner = skeleton.replace(/\([^()]*\)/g, 'g');
  return inner === skeleton ? skeleton : withoutGroups(inner);
}

/** Providers with a known key format; keys of the others cannot be recognized. */
const withKnownFormat = PROVIDERS.filter((provider) => provider.key.hint !== null);

describe('the list of providers', () => {
  it('has the documented ids in the documented order, the demo last', () => {
    expect(PROVIDER_IDS.join(' ')).toBe(
      'openai anthropic huggingface cohere together perplexity groq openrouter ollama custom demo',
    );
  });

  it('contains every file of the folder once, with the file name as id', async () => {
    const files = (await readdir(folder)).filter((file) => !NOT_PROVIDERS.includes(file));
    expect(files.map((file) => file.replace(/\.ts$/, '')).sort()).toEqual([...PROVIDER_IDS].sort());
    for (const provider of PROVIDERS) {
      const module = (await import(new URL(`${provider.id}.ts`, folder).href)) as Record<string, unknown>;
      expect(module[provider.id]).toBe(provider);
    }
  });

  it('expects of an endpoint whose API is unknown the protocols that most such servers have', () => {
    for (const { surfaces } of [custom, ollama])
      expect(surfaces).toEqual({ chat: '/chat/completions', embeddings: '/embeddings' });
  });

  it('has no two providers with the same name', () => {
    expect(new Set(PROVIDERS.map((provider) => provider.name)).size).toBe(PROVIDERS.length);
  });

  it('has no two providers that claim the same model', () => {
    for (const model of PROVIDERS.flatMap((provider) => provider.models)) {
      const claiming = PROVIDERS.filter((provider) =>
        provider.modelPatterns.some((pattern) => pattern.test(model)),
      );
      expect(claiming.map((provider) => provider.id).slice(1)).toEqual([]);
    }
  });
});

describe.each(cases)('provider %s', (id, provider) => {
  it('has an id of lower-case letters, as storage, settings and model prefixes require', () => {
    expect(id).toMatch(/^[a-z]{2,24}$/);
  });

  it('has a name that fits a label and every field of the contract', () => {
    expect(provider.name).toMatch(/^\S(.{0,38}\S)?$/);
    expect(Object.keys(provider).sort()).toEqual(
      'id name kind surfaces baseUrl docsUrl key authorize keyTest requiresEndpoint requiresKey modelPatterns models reportsStreamUsage isLocalOnly'
        .split(' ')
        .sort(),
    );
    expect(['llm', 'tool', 'git']).toContain(provider.kind);
  });

  it('serves chats, and names a path after the base URL for each of its protocols', () => {
    expect(provider.surfaces.chat).toBe('/chat/completions');
    expect(['chat', 'embeddings', 'responses', 'messages']).toEqual(
      expect.arrayContaining(Object.keys(provider.surfaces)),
    );
    expect(SURFACE_PATHS).toMatchObject(provider.surfaces);
  });

  it('has an https address without a trailing slash, or none where the key or local mode supplies it', () => {
    if (provider.baseUrl === null) {
      expect(provider.requiresEndpoint || provider.isLocalOnly).toBe(true);
      return;
    }
    expect(provider.requiresEndpoint).toBe(false);
    expect(provider.baseUrl).toMatch(/^https:\/\/[a-z0-9.-]+(\/[A-Za-z0-9._~-]+)*$/);
    expect(new URL(provider.baseUrl).href.replace(/\/$/, '')).toBe(provider.baseUrl);
  });

  it('links to the page with its keys when it is a hosted service', () => {
    const isHosted = provider.baseUrl !== null;
    expect(provider.docsUrl !== null).toBe(isHosted);
    if (provider.docsUrl !== null) expect(new URL(provider.docsUrl).protocol).toBe('https:');
  });

  it('accepts a key in the format of its hint, which starts with its prefix', () => {
    expect(exampleKey(provider)).toMatch(provider.key.pattern);
    expect(exampleKey(provider).startsWith(provider.key.prefix)).toBe(true);
    expect(provider.key.prefix === '').toBe(provider.key.hint === null);
  });

  it('refuses a key without its prefix, with text before the prefix, and the prefix alone', () => {
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

  it('refuses keys that are invalid in a header or pasted with surrounding text', () => {
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

  it('refuses a key whose prefix belongs to another provider', () => {
    if (provider.key.hint === null) return;
    for (const other of withKnownFormat.filter((one) => one.key.prefix !== provider.key.prefix)) {
      expect([other.id, provider.key.pattern.test(exampleKey(other))]).toEqual([other.id, false]);
    }
  });

  it('is tested at the base URL of its chats, with the key only in a header', () => {
    const { method, path, body, authorize, billed } = provider.keyTest;
    expect(path).toMatch(/^\/[a-z]+(\/[a-z]+)*$/);
    expect(method === 'POST').toBe(body !== undefined);
    // Providers charge for calls that generate output.
    expect(billed).toBe(method === 'POST');
    const headers = authorize('the-key');
    expect(Object.keys(headers)).toEqual(Object.keys(headers).map((name) => name.toLowerCase()));
    expect(Object.values(headers).filter((value) => value.endsWith('the-key'))).toHaveLength(1);
    expect(JSON.stringify([path, body])).not.toContain('the-key');
  });

  it('accepts an empty key only when no key is required', () => {
    expect(provider.key.pattern.test('')).toBe(!provider.requiresKey);
  });

  it('has patterns that match the whole text, keep no state and run in linear time', () => {
    for (const pattern of [provider.key.pattern, ...provider.modelPatterns]) {
      expect(pattern.flags).toMatch(/^u?$/);
      expect(pattern.source).toMatch(/^\^.*\$$/);
      const skeleton = pattern.source.replace(/\\./g, 'c').replace(/\[[^\]]*\]/g, 'c');
      // An alternative outside a group would be anchored at one end only.
      expect(withoutGroups(skeleton)).not.toContain('|');
      // With at most one unbounded repetition and no back reference, matching takes linear time.
      expect((skeleton.match(/[*+]|\{\d+,\}/g) ?? []).length).toBeLessThanOrEqual(1);
      expect(pattern.source).not.toMatch(/\\[1-9k]/);
    }
  });

  it('claims no model name with a vendor prefix, since OpenRouter uses such names', () => {
    for (const name of provider.models.map((model) => `vendor/${model}`)) {
      expect(provider.modelPatterns.some((pattern) => pattern.test(name))).toBe(false);
    }
  });

  it('lists no model twice, and only models that it claims or that have a vendor prefix', () => {
    expect(new Set(provider.models).size).toBe(provider.models.length);
    for (const model of provider.models) {
      const isClaimed = provider.modelPatterns.some((pattern) => pattern.test(model));
      expect([model, isClaimed || model.includes('/')]).toEqual([model, true]);
    }
  });
});
