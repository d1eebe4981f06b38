import { describe, expect, it } from '@jest/globals';
import { toEndpointSlug } from '../../src/providers/address.ts';
import { custom } from '../../src/providers/custom.ts';
import { openai } from '../../src/providers/openai.ts';

describe('the slug of an endpoint', () => {
  it.each([
    ['https://llm.example.com/v1', 'llm.example.com'],
    ['https://llm.example.com', 'llm.example.com'],
    ['https://llm.example.com:8443/v1', 'llm.example.com-8443'],
    ['http://llm.example.com:80/v1', 'llm.example.com'],
    ['http://127.0.0.1:11434/v1', '127.0.0.1-11434'],
    ['http://[::1]:11434/v1', '::1-11434'],
    // printf /openai/v1 | sha256sum
    ['https://llm.example.com/openai/v1', 'llm.example.com-be5a'],
    [null, 'operator'],
  ])('of %s is %s', (endpoint, slug) => {
    expect(toEndpointSlug(custom, endpoint)).toBe(slug);
  });

  it('does not exist where the provider has an address of its own', () => {
    expect(toEndpointSlug(openai, null)).toBeNull();
  });
});
