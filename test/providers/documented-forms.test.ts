import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { describe, expect, it } from '@jest/globals';
import { custom } from '../../src/providers/custom.ts';
import { demo } from '../../src/providers/demo.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import { openai } from '../../src/providers/openai.ts';
import { openrouter } from '../../src/providers/openrouter.ts';
import type { Provider } from '../../src/providers/provider.ts';

// Put together here, so that no scanner takes a made-up key for a real one.
const LETTERS = 'Zq7Xw2Lm9Kd4Rt6Yb1Nc';
const HEX = '0123456789abcdef';
const LEGACY = ['sk-', LETTERS, 'T3Blbk', 'FJ', LETTERS].join('');
const PROJECT = ['sk-', 'proj-', LETTERS, '_', LETTERS, '-', LETTERS, 'T3Blbk', 'FJ', LETTERS, LETTERS].join(
  '',
);
const SERVICE_ACCOUNT = ['sk-', 'svcacct-', LETTERS, '-', LETTERS, 'T3Blbk', 'FJ', LETTERS].join('');
const OPENROUTER = ['sk-', 'or-', 'v1-', HEX, HEX, HEX, HEX].join('');
const ANTHROPIC = ['sk-', 'ant-', 'api03-', LETTERS, LETTERS, LETTERS, LETTERS, 'AA'].join('');

function claims(model: string): string[] {
  return PROVIDERS.filter(({ modelPatterns }) => modelPatterns.some((pattern) => pattern.test(model))).map(
    ({ id }) => id,
  );
}

describe('key forms', () => {
  it.each<[string, Provider, string]>([
    ["OpenAI's user keys", openai, LEGACY],
    ["OpenAI's project keys", openai, PROJECT],
    ["OpenAI's service account keys", openai, SERVICE_ACCOUNT],
    ["OpenRouter's keys", openrouter, OPENROUTER],
    ["the demo's shortest keys", demo, 'demo-0123456789a'],
    ['any printable key of a custom endpoint', custom, 'p@ss/w0rd+with=signs:{}"'],
    ['no key for a custom endpoint', custom, ''],
  ])('%s are taken', (_, provider, key) => {
    expect(key).toMatch(provider.key.pattern);
  });

  it.each<[string, Provider, string]>([
    ["Anthropic's keys by OpenAI", openai, ANTHROPIC],
    ["OpenRouter's keys by OpenAI", openai, OPENROUTER],
    ["OpenAI's keys by OpenRouter", openrouter, PROJECT],
    ['demo keys under 16 characters', demo, 'demo-0123456789'],
    ['a masked key', openai, 'sk-…abcd'],
    ['the hint itself', openai, 'sk-...'],
  ])('%s are refused', (_, provider, key) => {
    expect(key).not.toMatch(provider.key.pattern);
  });
});

describe('model names', () => {
  it("of OpenAI's own SDK for chat are all claimed by OpenAI alone, and OpenAI shows no other", async () => {
    const path = createRequire(import.meta.url).resolve('openai/resources/shared');
    const types = await readFile(path.replace(/\.(m?)js$/, '.d.$1ts'), 'utf8');
    const list = /export type ChatModel =([^;]+);/.exec(types)?.[1] ?? '';
    const names = [...list.matchAll(/'([^']+)'/g)].map((match) => match[1] ?? '');
    expect(names.length).toBeGreaterThan(50);
    for (const name of names) expect([name, claims(name)]).toEqual([name, ['openai']]);
    expect(names).toEqual(expect.arrayContaining([...openai.models]));
  });

  it.each([
    ['ft:gpt-4o-mini-2024-07-18:acme::AbC123', ['openai']],
    ['text-embedding-3-small', ['openai']],
    ['demo', ['demo']],
    ['demo-tools', ['demo']],
    ['gpt-oss-120b', []],
    ['demographics', []],
    ['o1x', []],
    ['olmo-2', []],
    ['claude-sonnet-4-5', []],
    ['openai/gpt-4o', []],
    ['gpt-4o\n', []],
    ['GPT-4o', []],
  ])('%j goes to %j', (model, ids) => {
    expect(claims(model)).toEqual(ids);
  });
});
