import { describe, expect, it } from '@jest/globals';
import { AppError } from '../../src/lib/errors.ts';
import { assertKeyFormat, maskKey } from '../../src/keys/key-format.ts';
import { anthropic } from '../../src/providers/anthropic.ts';
import { cohere } from '../../src/providers/cohere.ts';
import { custom } from '../../src/providers/custom.ts';
import { demo } from '../../src/providers/demo.ts';
import { groq } from '../../src/providers/groq.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import { openai } from '../../src/providers/openai.ts';
import { openrouter } from '../../src/providers/openrouter.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { together } from '../../src/providers/together.ts';

const good = `sk-proj-${'a1B2'.repeat(6)}`;

function refusal(provider: Provider, key: string): AppError {
  try {
    assertKeyFormat(provider, key, PROVIDERS);
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error('the key was accepted');
}

describe('the form of a key', () => {
  it.each<[Provider, string]>([
    [openai, good],
    [openrouter, `sk-or-v1-${'0'.repeat(32)}`],
    [demo, 'demo-0123456789abc'],
    [custom, good],
    [custom, 'anything!~'],
    [custom, ''],
  ])('is accepted where it is that of its provider (%#)', (provider, key) => {
    expect(() => {
      assertKeyFormat(provider, key, PROVIDERS);
    }).not.toThrow();
  });

  it.each<[string, string, string]>([
    ['a blank inside', `${good} x`, `Character ${good.length + 1} of the key is a blank.`],
    ['a blank before it', ` ${good}`, 'Character 1 of the key is a blank.'],
    ['a line break after it', `${good}\n`, `Character ${good.length + 1} of the key is a line break.`],
    ['a tab', `sk-\t${good}`, 'Character 4 of the key is a blank.'],
    ['a no-break space', `sk-\u00a0${good}`, 'Character 4 of the key is a blank.'],
    ['a typographic dash', good.replace('-', '–'), 'Character 3 of the key is not printable ASCII.'],
    ['an emoji before the fault', `🔑${good}`, 'Character 1 of the key is not printable ASCII.'],
    ['a control character', `sk-\u0000${good}`, 'Character 4 of the key is not printable ASCII.'],
    [
      'an invisible character',
      `${good}\u200b`,
      `Character ${good.length + 1} of the key is not printable ASCII.`,
    ],
  ])('is refused with its place for %s', (_name, key, detail) => {
    expect(refusal(openai, key)).toMatchObject({ code: 'invalid_key_format', status: 400, detail });
  });

  it.each(['***stored***', '***masked***', 'sk-…4Xyz', '…', '••••••••', '********', '  ***stored*** '])(
    'is never a mask that was sent back: %s',
    (mask) => {
      for (const provider of [openai, custom])
        expect(refusal(provider, mask)).toMatchObject({
          code: 'invalid_key_format',
          detail: expect.stringContaining('mask'),
        });
    },
  );

  it('may be empty only where the provider does without', () => {
    expect(refusal(openai, '')).toMatchObject({ code: 'invalid_key_format', detail: 'A key is required.' });
  });

  it('names the provider whose key it looks like', () => {
    const key = `sk-or-v1-${'0'.repeat(32)}`;
    expect(refusal(openai, key)).toMatchObject({
      code: 'wrong_provider_key',
      detail: 'This looks like a key of OpenRouter, not of OpenAI.',
    });
  });

  it.each<[string, Provider, string, string]>([
    ["Anthropic's, though it begins like OpenAI's", openai, `sk-ant-api03-${'a1'.repeat(20)}`, 'Anthropic'],
    ["OpenRouter's, though it begins like OpenAI's", anthropic, `sk-or-v1-${'0'.repeat(64)}`, 'OpenRouter'],
    ["OpenAI's at one that begins like it", anthropic, `sk-proj-${'a1B2'.repeat(6)}`, 'OpenAI'],
    ["Groq's", together, `gsk_${'a1B2'.repeat(13)}`, 'Groq'],
    ["Hugging Face's", cohere, `hf_${'aB'.repeat(17)}`, 'Hugging Face'],
    ["Perplexity's", groq, `pplx-${'a1B2'.repeat(12)}`, 'Perplexity'],
    ["Together's", openai, `tgp_v1_${'a1B2'.repeat(11)}`, 'Together AI'],
    ['one that was cut off', openai, 'gsk_a1B2', 'Groq'],
  ])('names whose it is by its longest known prefix: %s', (_name, provider, key, owner) => {
    expect(refusal(provider, key)).toMatchObject({
      code: 'wrong_provider_key',
      detail: `This looks like a key of ${owner}, not of ${provider.name}.`,
    });
  });

  it("is nobody's where the prefix is that of the provider itself, or where there is none", () => {
    expect(refusal(groq, 'gsk_a1B2')).toMatchObject({ code: 'invalid_key_format' });
    expect(refusal(cohere, 'a1B2'.repeat(16))).toMatchObject({
      code: 'invalid_key_format',
      detail: 'This is not a key of Cohere.',
    });
  });

  it("gives the provider's hint for what looks like nobody's", () => {
    expect(refusal(openai, 'hello-world-hello-world')).toMatchObject({
      code: 'invalid_key_format',
      detail: 'This is not a key of OpenAI (it looks like sk-...).',
    });
  });

  it('has at most 1,024 characters', () => {
    const longest = 'sk-' + 'a'.repeat(1021);
    expect(() => {
      assertKeyFormat(openai, longest, PROVIDERS);
    }).not.toThrow();
    expect(refusal(openai, `${longest}a`)).toMatchObject({ code: 'key_too_long', status: 400 });
  });

  it('that is far too long is refused for its length, before its characters are looked at', () => {
    expect(refusal(openai, `${'a'.repeat(1024 * 1024)} \n…`)).toMatchObject({ code: 'key_too_long' });
  });

  it('never comes back in a refusal', () => {
    const keys = [`${good} x`, `${good}\n`, `wrong-${good}`, `sk-or-v1-${good}`, good.repeat(60), `${good}…`];
    for (const key of keys) expect(JSON.stringify(refusal(openai, key))).not.toContain('a1B2');
  });
});

describe('the preview of a key', () => {
  it.each<[Provider, string, string]>([
    [openai, good, 'sk-…a1B2'],
    [openrouter, `sk-or-v1-${'0'.repeat(32)}`, 'sk-or-…0000'],
    [custom, 'abcdefghijklmnop', '…mnop'],
    [custom, 'abcdefghijklmno', '…'],
    [custom, '', '…'],
  ])(
    'shows the public prefix and the last four, and nothing of a short key (%#)',
    (provider, key, preview) => {
      expect(maskKey(provider, key)).toBe(preview);
    },
  );
});
