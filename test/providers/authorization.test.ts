import { describe, expect, it } from '@jest/globals';
import { PROVIDERS } from '../../src/providers/index.ts';
import type { SurfaceName } from '../../src/providers/provider.ts';

const KEY = 'the-key';
const BEARER = { authorization: `Bearer ${KEY}` };

/** Every other protocol of every provider has a bearer token. */
const OTHERS: Readonly<Record<string, object>> = { 'anthropic messages': { 'x-api-key': KEY } };

describe('the authorization of a call', () => {
  const cases = PROVIDERS.flatMap((provider) =>
    Object.keys(provider.surfaces).map((surface) => [provider, surface as SurfaceName] as const),
  );
  it.each(cases.map(([provider, surface]) => [`${provider.id} ${surface}`, provider, surface] as const))(
    'has exactly the headers of the protocol: %s',
    (name, provider, surface) => {
      expect(provider.authorize(KEY, surface)).toEqual(OTHERS[name] ?? BEARER);
    },
  );
});
