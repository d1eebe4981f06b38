import { describe, expect, it } from '@jest/globals';
import { AppError } from '../../src/lib/errors.ts';
import { findFormatError } from '../../src/keys/key-input.ts';
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

const validKey = `sk-proj-${'a1B2'.repeat(6)}`;

function refusal(provider: Provider, key: string): AppError {
  try {
    const error = findFormatError(provider, key, PROVIDERS);
    if (error !== undefined) return error;
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error('the key was accepted');
}

describe('the format of a key', () => {
  it.each<[Provider, string]>([
    [openai, validKey],
    [openai, `sk-or-team-${'a1B2'.repeat(6)}`],
    [openrouter, `sk-or-v1-${'0'.repeat(32)}`],
    [openrouter, `sk-or-v2-${'0'.repeat(32)}`],
    [demo, 'demo-0123456789abc'],
    [custom, validKey],
    [custom, 'anything!~'],
    [custom, ''],
  ])('is accepted where it is the format of the provider (%#)', (provider, key) => {
    expect(findFormatError(provider, key, PROVIDERS)).toBeUndefined();
  });

  it.each<[string, string, string]>([
    ['a blank inside', `${validKey} x`, `Character ${validKey.length + 1} of the key is a blank.`],
    ['a blank before it', ` ${validKey}`, 'Character 1 of the key is a blank.'],
    [
      'a line break after it',
      `${validKey}\n`,
      `Character ${validKey.length + 1} of the key is a line break.`,
    ],
    ['a tab', `sk-\t${validKey}`, 'Character 4 of the key is a blank.'],
    ['a no-break space', `sk-\u00a0${validKey}`, 'Character 4 of the key is a blank.'],
    ['a typographic dash', validKey.replace('-', '–'), 'Character 3 of the key is not printable ASCII.'],
    ['an emoji at the start', `🔑${validKey}`, 'Character 1 of the key is not printable ASCII.'],
    ['a control character', `sk-\u0000${validKey}`, 'Character 4 of the key is not printable ASCII.'],
    [
      'an invisible character',
      `${validKey}\u200b`,
      `Character ${validKey.length + 1} of the key is not printable ASCII.`,
    ],
  ])('is refused with the position for %s', (_name, key, detail) => {
    expect(refusal(openai, key)).toMatchObject({ code: 'invalid_key_format', status: 400, detail });
  });

  it.each(['***stored***', '***masked***', 'sk-…4Xyz', '…', '••••••••', '********', '  ***stored*** '])(
    'is never a returned mask: %s',
    (mask) => {
      for (const provider of [openai, custom])
        expect(refusal(provider, mask)).toMatchObject({
          code: 'invalid_key_format',
          detail: expect.stringContaining('mask'),
        });
    },
  );

  it('may be empty only if the provider requires no key', () => {
    expect(refusal(openai, '')).toMatchObject({ code: 'invalid_key_format', detail: 'A key is required.' });
  });

  it('is refused with the provider to which the key seems to belong', () => {
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
    ['a truncated key', openai, 'gsk_a1B2', 'Groq'],
  ])(
    'is refused with the provider of the longest known prefix: %s',
    (_name, provider, key, actualProvider) => {
      expect(refusal(provider, key)).toMatchObject({
        code: 'wrong_provider_key',
        detail: `This looks like a key of ${actualProvider}, not of ${provider.name}.`,
      });
    },
  );

  it.each<[Provider, string]>([
    [openai, 'hello-world-hello-world'],
    [groq, 'gsk_a1B2'],
    [cohere, 'a1B2'.repeat(16)],
    [anthropic, `sk-ant-admin01-${'a1'.repeat(20)}`],
  ])('of an unknown form is left to the answer of the provider (%#)', (provider, key) => {
    expect(findFormatError(provider, key, PROVIDERS)).toMatchObject({ code: 'invalid_key_format' });
  });

  it.each<[Provider, string]>([
    [openai, ''],
    [openai, '***stored***'],
    [openai, `${validKey} x`],
    [openai, `sk-or-v1-${'0'.repeat(32)}`],
    [openai, 'a'.repeat(1025)],
  ])('is refused whatever the provider would answer (%#)', (provider, key) => {
    expect(() => findFormatError(provider, key, PROVIDERS)).toThrow(AppError);
  });

  it('is refused without another provider where the prefix is its own or unknown', () => {
    expect(refusal(groq, 'gsk_a1B2')).toMatchObject({ code: 'invalid_key_format' });
    expect(refusal(cohere, 'a1B2'.repeat(16))).toMatchObject({
      code: 'invalid_key_format',
      detail: 'This is not a key of Cohere.',
    });
  });

  it('is refused with the hint of the provider where no provider matches', () => {
    expect(refusal(openai, 'hello-world-hello-world')).toMatchObject({
      code: 'invalid_key_format',
      detail: 'This is not a key of OpenAI (its keys look like sk-...).',
    });
  });

  it('has at most 1,024 characters', () => {
    const longest = 'sk-' + 'a'.repeat(1021);
    expect(findFormatError(openai, longest, PROVIDERS)).toBeUndefined();
    expect(refusal(openai, `${longest}a`)).toMatchObject({ code: 'key_too_long', status: 400 });
  });

  it('is refused for its length before its characters are checked', () => {
    expect(refusal(openai, `${'a'.repeat(1024 * 1024)} \n…`)).toMatchObject({ code: 'key_too_long' });
  });

  it('is refused without repeating the key', () => {
    const keys = [
      `${validKey} x`,
      `${validKey}\n`,
      `wrong-${validKey}`,
      `sk-or-v1-${validKey}`,
      validKey.repeat(60),
      `${validKey}…`,
    ];
    for (const key of keys) expect(JSON.stringify(refusal(openai, key))).not.toContain('a1B2');
  });
});
