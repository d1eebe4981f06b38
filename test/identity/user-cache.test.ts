import { describe, expect, it } from '@jest/globals';
import type KcAdminClient from '@keycloak/keycloak-admin-client';
import { createUserCache } from '../../src/identity/user-cache.ts';
import type { KeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';

/** Keycloak whose answers the test gives, one look-up after the other. */
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

describe('the directory', () => {
  it('asks once for all who want the same user at the same time', async () => {
    const { directory, waiting } = scriptedKeycloak();
    const both = Promise.all([directory.findUser('u1'), directory.findUser('u1')]);
    expect(waiting).toHaveLength(1);
    waiting[0]?.resolve(userOf('starter'));
    const [a, b] = await both;
    expect(a).toEqual({ id: 'u1', username: 'ada', email: null, name: null, tier: 'starter' });
    expect(b).toEqual(a);
  });

  it('uses an answer for 10 s from the start of its fetch, not from its end', async () => {
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

  it('asks sooner for those who want it fresher, and never later for those who say more than 10 s', async () => {
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

  it('does not keep an answer whose user was forgotten while it was fetched', async () => {
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

  it('never falls back to an older answer when Keycloak fails, and asks again next time', async () => {
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
    ['without a word on being enabled', { id: 'u1', username: 'ada' }],
    ['somebody else', { ...userOf(), id: 'u2' }],
  ])('does not know a user who is %s', async (_name, answer) => {
    const { directory, waiting } = scriptedKeycloak();
    const found = directory.findUser('u1');
    waiting[0]?.resolve(answer);
    expect(await found).toBeUndefined();
  });

  it.each([['unlimited'], ['Enterprise'], [undefined]])('takes the tier %s for free', async (tier) => {
    const { directory, waiting } = scriptedKeycloak();
    const found = directory.findUser('u1');
    waiting[0]?.resolve(userOf(tier));
    expect((await found)?.tier).toBe('free');
  });

  it('asks nobody about an empty id, which would list the realm', async () => {
    const { directory, waiting } = scriptedKeycloak();
    expect(await directory.findUser('')).toBeUndefined();
    expect(waiting).toHaveLength(0);
  });

  it('holds a bounded number of users and drops the oldest', () => {
    const { directory, waiting } = scriptedKeycloak();
    for (const id of ['a', 'b', 'c', 'd']) void directory.findUser(id);
    void directory.findUser('d');
    expect(waiting).toHaveLength(4);
    void directory.findUser('a');
    expect(waiting).toHaveLength(5);
  });
});
