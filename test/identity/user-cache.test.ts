import { describe, expect, it } from '@jest/globals';
import type KcAdminClient from '@keycloak/keycloak-admin-client';
import { createUserCache } from '../../src/identity/user-cache.ts';
import type { KeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';

/** Keycloak double: the test resolves each lookup. */
function scriptedKeycloak() {
  const waiting: { id: string; resolve(value: unknown): void; reject(error: Error): void }[] = [];
  const client = {
    users: {
      findOne: ({ id }: { id: string }) =>
        new Promise((resolve, reject) => {
          waiting.push({ id, resolve, reject });
        }),
    },
  } as unknown as KcAdminClient;
  const keycloakAdmin = { realm: 'x', call: (work: (c: KcAdminClient) => unknown) => work(client) };
  let clockMs = 1_000_000;
  const userCache = createUserCache({
    keycloakAdmin: keycloakAdmin as unknown as KeycloakAdmin,
    now: () => clockMs,
    maxEntries: 3,
  });
  return { directory: userCache, waiting, advance: (ms: number) => void (clockMs += ms) };
}

const userOf = (tier?: string) => ({
  id: 'u1',
  username: 'ada',
  enabled: true,
  ...(tier === undefined ? {} : { attributes: { subscription_tier: [tier] } }),
});

describe('the user cache', () => {
  it('makes one request for concurrent lookups of a user', async () => {
    const { directory, waiting } = scriptedKeycloak();
    const both = Promise.all([directory.findUser('u1'), directory.findUser('u1')]);
    expect(waiting).toHaveLength(1);
    waiting[0]?.resolve(userOf('starter'));
    const [a, b] = await both;
    expect(a).toEqual({ id: 'u1', username: 'ada', email: null, name: null, tier: 'starter' });
    expect(b).toEqual(a);
  });

  it('uses a user for 10 s from the start of its fetch, not from its end', async () => {
    const { directory, waiting, advance } = scriptedKeycloak();
    const first = directory.findUser('u1');
    advance(4_000);
    waiting[0]?.resolve(userOf());
    await first;
    advance(5_999);
    await directory.findUser('u1');
    expect(waiting).toHaveLength(1);
    advance(1);
    void directory.findUser('u1');
    expect(waiting).toHaveLength(2);
  });

  it('accepts a lower maximum age, and limits a higher one to 10 s', async () => {
    const { directory, waiting, advance } = scriptedKeycloak();
    const first = directory.findUser('u1');
    waiting[0]?.resolve(userOf());
    await first;
    advance(5_000);
    void directory.findUser('u1', 4_000);
    expect(waiting).toHaveLength(2);
    advance(10_000);
    void directory.findUser('u1', 60_000);
    expect(waiting).toHaveLength(3);
  });

  it('does not cache a user that was invalidated during the fetch', async () => {
    const { directory, waiting } = scriptedKeycloak();
    const old = directory.findUser('u1');
    directory.invalidate('u1');
    const fresh = directory.findUser('u1');
    waiting[1]?.resolve(userOf('free'));
    expect((await fresh)?.tier).toBe('free');
    waiting[0]?.resolve(userOf('enterprise'));
    await old;
    expect((await directory.findUser('u1'))?.tier).toBe('free');
    expect(waiting).toHaveLength(2);
  });

  it('never falls back to an expired user if Keycloak fails, and fetches again on the next lookup', async () => {
    const { directory, waiting, advance } = scriptedKeycloak();
    const first = directory.findUser('u1');
    waiting[0]?.resolve(userOf('starter'));
    await first;
    advance(10_000);
    const second = directory.findUser('u1');
    waiting[1]?.reject(new Error('down'));
    await expect(second).rejects.toMatchObject({ code: 'keycloak_unavailable' });
    const third = directory.findUser('u1');
    waiting[2]?.resolve(userOf('starter'));
    expect((await third)?.tier).toBe('starter');
  });

  it.each([
    ['missing', null],
    ['disabled', { ...userOf(), enabled: false }],
    ['without `enabled`', { id: 'u1', username: 'ada' }],
    ['another user', { ...userOf(), id: 'u2' }],
  ])('does not find a user that is %s', async (_name, answer) => {
    const { directory, waiting } = scriptedKeycloak();
    const found = directory.findUser('u1');
    waiting[0]?.resolve(answer);
    expect(await found).toBeUndefined();
  });

  it.each([['unlimited'], ['Enterprise'], [undefined]])('maps the tier %s to free', async (tier) => {
    const { directory, waiting } = scriptedKeycloak();
    const found = directory.findUser('u1');
    waiting[0]?.resolve(userOf(tier));
    expect((await found)?.tier).toBe('free');
  });

  it('makes no request for an empty id, which would list the realm', async () => {
    const { directory, waiting } = scriptedKeycloak();
    expect(await directory.findUser('')).toBeUndefined();
    expect(waiting).toHaveLength(0);
  });

  it('limits the number of users and drops the oldest', () => {
    const { directory, waiting } = scriptedKeycloak();
    for (const id of ['a', 'b', 'c', 'd']) void directory.findUser(id);
    void directory.findUser('d');
    expect(waiting).toHaveLength(4);
    void directory.findUser('a');
    expect(waiting).toHaveLength(5);
  });
});
