import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { createDatabase } from '../support/database.ts';
import { createInstance, createPrincipal, randomKey, type Instance } from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';

const MINUTE_MS = 60_000;
let instance: Instance;
let owner: pg.Client;

beforeAll(async () => {
  const { appUrl, ownerUrl } = await createDatabase();
  instance = createInstance(createInstanceOptions(appUrl));
  owner = new pg.Client({ connectionString: ownerUrl });
  await owner.connect();
});

afterAll(async () => {
  await owner.end();
  await instance.close();
});

async function withKey() {
  const principal = createPrincipal();
  const name = `user:${principal.user.id}` as const;
  const body = { provider: 'openai', key: randomKey(), label: null, endpoint: null };
  const { key } = await instance.keys.add(principal, body, 'r1');
  return {
    refuse: () => instance.keys.recordRefusal(name, 'openai', key.id),
    use: () => instance.keys.recordUse(name, 'openai', key.id),
    undecryptable: () => instance.keys.recordUndecryptable(name, 'openai', key.id),
    /** Ends the cooldown of the key. */
    endCooldown: () =>
      owner.query(
        "UPDATE provider_key_facts SET set_aside_until = now() - interval '1 second' WHERE key_id = $1",
        [key.id],
      ),
    cooldownMs: async () => {
      const pool = (await instance.keys.readKeysByProvider(name)).get('openai');
      const until = pool?.[0]?.cooldownUntil?.getTime();
      return until === undefined ? undefined : until - Date.now();
    },
    /** The version of the row, including row locks. */
    version: async () =>
      (
        await owner.query(
          'SELECT xmin::text, xmax::text, ctid::text FROM provider_key_facts WHERE key_id = $1',
          [key.id],
        )
      ).rows as unknown[],
    view: async () => (await instance.keys.listKeys(principal))[0],
  };
}

/** Expects a cooldown that started now; some seconds may have passed since. */
function expectCooldown(actualMs: number | undefined, minutes: number): void {
  expect(actualMs).toBeGreaterThan(minutes * MINUTE_MS - 20_000);
  expect(actualMs).toBeLessThanOrEqual(minutes * MINUTE_MS + 1_000);
}

describe('a key refused by its provider', () => {
  it('has cooldowns of 1, 5 and 30 minutes, then of an hour each, and is shown as invalid', async () => {
    const key = await withKey();
    for (const minutes of [1, 5, 30, 60, 60, 60]) {
      await key.refuse();
      expectCooldown(await key.cooldownMs(), minutes);
      expect(await key.view()).toMatchObject({
        test_status: 'invalid',
        test_message: 'The provider refused it (401).',
      });
      await key.endCooldown();
    }
  });

  it('counts concurrent refusals as one', async () => {
    const key = await withKey();
    await Promise.all(Array.from({ length: 6 }, () => key.refuse()));
    expectCooldown(await key.cooldownMs(), 1);
    await key.endCooldown();
    await key.refuse();
    expectCooldown(await key.cooldownMs(), 5);
  });

  it('starts with the shortest cooldown again after a successful use', async () => {
    const key = await withKey();
    await key.refuse();
    await key.endCooldown();
    await key.refuse();
    await key.use();
    expect(await key.cooldownMs()).toBeUndefined();
    expect(await key.view()).toMatchObject({ test_status: 'valid', test_message: null });
    await key.refuse();
    expectCooldown(await key.cooldownMs(), 1);
  });
});

describe('a used key', () => {
  it('shows the time of its last use, and stays untested', async () => {
    const key = await withKey();
    expect(await key.view()).toMatchObject({ last_used: null, test_status: 'untested' });
    await key.use();
    const view = await key.view();
    expect(Math.abs(Date.parse(view?.last_used ?? '') - Date.now())).toBeLessThan(20_000);
    expect(view).toMatchObject({ test_status: 'untested', last_tested: null });
  });
});

describe('a key that cannot be decrypted', () => {
  it('is shown as undecryptable, has no cooldown, and recovers with its next use', async () => {
    const key = await withKey();
    await key.undecryptable();
    expect(await key.view()).toMatchObject({ test_status: 'undecryptable' });
    expect(await key.cooldownMs()).toBeUndefined();
    await key.use();
    expect(await key.view()).toMatchObject({ test_status: 'valid', test_message: null });
  });

  it('is written once: a repeated report changes and locks no row', async () => {
    const key = await withKey();
    await key.refuse();
    await key.undecryptable();
    const written = await key.version();
    expect(written).toHaveLength(1);
    await key.undecryptable();
    expect(await key.version()).toEqual(written);
  });

  it('is written once by concurrent requests', async () => {
    const key = await withKey();
    await Promise.all(Array.from({ length: 6 }, () => key.undecryptable()));
    expect(await key.version()).toHaveLength(1);
    expect(await key.view()).toMatchObject({ test_status: 'undecryptable' });
  });
});
