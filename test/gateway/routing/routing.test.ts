import { Readable } from 'node:stream';
import { afterEach, describe, expect, it, jest } from '@jest/globals';
import { createRouting } from '../../../src/gateway/routing/routing.ts';
import type { ProviderKey } from '../../../src/keys/service.ts';
import type { Dialer } from '../../../src/lib/net/dialer.ts';
import type { LoopGuard } from '../../../src/lib/net/loop-guard.ts';
import { PROVIDERS } from '../../../src/providers/index.ts';

afterEach(() => {
  jest.restoreAllMocks();
});

function createKey(provider: string): ProviderKey {
  return {
    ...{ id: provider, provider, label: null, endpoint: null, enabled: true, expiresAt: null },
    ...{ cooldownUntil: null, token: `token of ${provider}`, isReadable: true },
    decrypt: () => ({ secret: 'a secret', endpoint: null }),
  };
}

describe('a decision that depends on model lists', () => {
  it('waits for a list that was never read, but not for an older one that is read again', async () => {
    let nowMs = 0;
    jest.spyOn(Date, 'now').mockImplementation(() => nowMs);
    const keys = new Map([['together', [createKey('together')]]]);
    const asked: string[] = [];
    let isTogetherSilent = false;
    const request: Dialer['request'] = ({ url }) => {
      asked.push(url.host);
      if (isTogetherSilent && url.host === 'api.together.xyz') return new Promise(() => undefined);
      const list = { object: 'list', data: [{ id: `model-of/${url.host}`, object: 'model' }] };
      const body = Readable.from([Buffer.from(JSON.stringify(list))]);
      return Promise.resolve({ status: 200, headers: {}, body, isFromPublicAddress: true });
    };
    const routing = createRouting({
      keys: { readKeysByProvider: () => Promise.resolve(keys) },
      dialer: { request } as unknown as Dialer,
      loopGuard: {} as LoopGuard,
      providers: PROVIDERS,
      upstreams: { overrides: {} },
      system: null,
    });
    const user = { id: 'u', username: '', email: null, name: null, tier: 'starter' } as const;
    const decide = (model: string) => routing.decide({ user, token: null }, model, undefined);
    expect(await decide('model-of/api.together.xyz')).toMatchObject({ kind: 'pool', provider: 'together' });
    nowMs += 5 * 60_000;
    isTogetherSilent = true;
    keys.set('groq', [createKey('groq')]);
    expect(await decide('model-of/api.groq.com')).toMatchObject({ kind: 'pool', provider: 'groq' });
    expect(asked).toEqual(['api.together.xyz', 'api.together.xyz', 'api.groq.com']);
    // The older list still counts.
    expect(await decide('model-of/api.together.xyz')).toMatchObject({ kind: 'pool', provider: 'together' });
  });
});
