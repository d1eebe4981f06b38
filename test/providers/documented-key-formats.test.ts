import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { describe, expect, it } from '@jest/globals';
import { anthropic } from '../../src/providers/anthropic.ts';
import { cohere } from '../../src/providers/cohere.ts';
import { custom } from '../../src/providers/custom.ts';
import { demo } from '../../src/providers/demo.ts';
import { groq } from '../../src/providers/groq.ts';
import { huggingface } from '../../src/providers/huggingface.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import { ollama } from '../../src/providers/ollama.ts';
import { openai } from '../../src/providers/openai.ts';
import { openrouter } from '../../src/providers/openrouter.ts';
import { perplexity } from '../../src/providers/perplexity.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { together } from '../../src/providers/together.ts';

// Assembled here, so that no secret scanner reports an invented key.
const LETTERS = 'Zq7Xw2Lm9Kd4Rt6Yb1Nc';
const HEX = '0123456789abcdef';
const LEGACY = ['sk-', LETTERS, 'T3Blbk', 'FJ', LETTERS].join('');
const PROJECT = ['sk-', 'proj-', LETTERS, '_', LETTERS, '-', LETTERS, 'T3Blbk', 'FJ', LETTERS, LETTERS].join(
  '',
);
const SERVICE_ACCOUNT = ['sk-', 'svcacct-', LETTERS, '-', LETTERS, 'T3Blbk', 'FJ', LETTERS].join('');
const OPENROUTER = ['sk-', 'or-', 'v1-', HEX, HEX, HEX, HEX].join('');
const ANTHROPIC = ['sk-', 'ant-', 'api03-', LETTERS, LETTERS, LETTERS, LETTERS, 'AA'].join('');
const ANTHROPIC_ADMIN = ANTHROPIC.replace('api03', 'admin01');
const ANTHROPIC_OAUTH = ANTHROPIC.replace('api03', 'oat01');
// Lengths as in the rules of gitleaks and trufflehog.
const HUGGINGFACE = ['hf_', LETTERS, LETTERS.slice(0, 14)].join('');
const HUGGINGFACE_OAUTH = ['hf_', 'oauth_', 'eyJ', LETTERS, '.', LETTERS, '.', LETTERS, '-_', LETTERS].join(
  '',
);
const COHERE = [LETTERS, LETTERS].join('');
const TOGETHER = ['tgp_', 'v1_', LETTERS, '-_', LETTERS, 'a'].join('');
const TOGETHER_OLD = [HEX, HEX, HEX, HEX].join('');
const PERPLEXITY = ['pplx-', LETTERS, LETTERS, 'Abcd1234'].join('');
const GROQ = ['gsk_', LETTERS, LETTERS, 'Abcd12345678'].join('');

function claims(model: string): string[] {
  return PROVIDERS.filter(({ modelPatterns }) => modelPatterns.some((pattern) => pattern.test(model))).map(
    ({ id }) => id,
  );
}

describe('key formats', () => {
  it.each<[string, Provider, string]>([
    ["OpenAI's user keys", openai, LEGACY],
    ["OpenAI's project keys", openai, PROJECT],
    ["OpenAI's service account keys", openai, SERVICE_ACCOUNT],
    ["OpenRouter's keys", openrouter, OPENROUTER],
    ["Anthropic's API keys", anthropic, ANTHROPIC],
    ["Hugging Face's tokens", huggingface, HUGGINGFACE],
    ["Hugging Face's OAuth tokens", huggingface, HUGGINGFACE_OAUTH],
    ["Cohere's keys", cohere, COHERE],
    ["Together's keys", together, TOGETHER],
    ["Together's older keys", together, TOGETHER_OLD],
    ["Perplexity's keys", perplexity, PERPLEXITY],
    ["Groq's keys", groq, GROQ],
    ["Groq's older keys", groq, GROQ.slice(0, 52)],
    ['no key for Ollama', ollama, ''],
    ["the demo's shortest keys", demo, 'demo-0123456789a'],
    ['any printable key of a custom endpoint', custom, 'p@ss/w0rd+with=signs:{}"'],
    ['no key for a custom endpoint', custom, ''],
  ])('%s are accepted', (_, provider, key) => {
    expect(key).toMatch(provider.key.pattern);
  });

  it.each<[string, Provider, string]>([
    ["Anthropic's keys by OpenAI", openai, ANTHROPIC],
    ["OpenRouter's keys by OpenAI", openai, OPENROUTER],
    ["OpenAI's keys by OpenRouter", openrouter, PROJECT],
    ["Anthropic's admin keys", anthropic, ANTHROPIC_ADMIN],
    ["Anthropic's subscription tokens", anthropic, ANTHROPIC_OAUTH],
    ["Together's older keys by Cohere", cohere, TOGETHER_OLD],
    ["Together's older keys in upper case", together, TOGETHER_OLD.toUpperCase()],
    ["Cohere's keys by Together", together, COHERE],
    ['demo keys under 16 characters', demo, 'demo-0123456789'],
    ['a masked key', openai, 'sk-…abcd'],
    ['the hint itself', openai, 'sk-...'],
  ])('%s are refused', (_, provider, key) => {
    expect(key).not.toMatch(provider.key.pattern);
  });
});

describe('model names', () => {
  it("of OpenAI's SDK for chat are claimed by OpenAI alone, and OpenAI lists no others", async () => {
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
    ['claude-sonnet-4-5', ['anthropic']],
    ['claude-3-5-haiku@20241022', []],
    ['anthropic/claude-sonnet-4-5', []],
    ['sonar', ['perplexity']],
    ['sonar-reasoning-pro', ['perplexity']],
    ['sonarqube', []],
    ['command-a-03-2025', ['cohere']],
    ['command', []],
    ['llama-3.3-70b-versatile', ['groq']],
    ['llama-3.3-70b-instruct', []],
    ['llama3.2:latest', []],
    ['openai/gpt-4o', []],
    ['gpt-4o\n', []],
    ['GPT-4o', []],
  ])('%j is claimed by %j', (model, ids) => {
    expect(claims(model)).toEqual(ids);
  });
});
