import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { createDatabase } from '../support/stack.ts';
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
    /** Lets the time that the key is set aside for pass at once. */
    wait: () =>
      owner.query(
        "UPDATE provider_key_facts SET set_aside_until = now() - interval '1 second' WHERE key_id = $1",
        [key.id],
      ),
    asideForMs: async () => {
      const pool = (await instance.keys.readPools(name)).get('openai');
      const until = pool?.[0]?.cooldownUntil?.getTime();
      return until === undefined ? undefined : until - Date.now();
    },
    /** Which version of the row this is, and whether anything has locked it since. */
    version: async () =>
      (
        await owner.query(
          'SELECT xmin::text, xmax::text, ctid::text FROM provider_key_facts WHERE key_id = $1',
          [key.id],
        )
      ).rows as unknown[],
    view: async () => (await instance.keys.listKeys(principal.user))[0],
  };
}

/** A set-aside time that began just now: a few seconds may have gone by since. */
function expectMinutes(actualMs: number | undefined, minutes: number): void {
  expect(actualMs).toBeGreaterThan(minutes * MINUTE_MS - 20_000);
  expect(actualMs).toBeLessThanOrEqual(minutes * MINUTE_MS + 1_000);
}

describe('a key that its provider refuses', () => {
  it('is set aside for 1, 5 and 30 minutes, then for an hour each time, and shown as invalid', async () => {
    const key = await withKey();
    for (const minutes of [1, 5, 30, 60, 60, 60]) {
      await key.refuse();
      expectMinutes(await key.asideForMs(), minutes);
      expect(await key.view()).toMatchObject({
        test_status: 'invalid',
        test_message: 'The provider refused it (401).',
      });
      await key.wait();
    }
  });

  it('is refused once, however many requests were under way with it', async () => {
    const key = await withKey();
    await Promise.all(Array.from({ length: 6 }, () => key.refuse()));
    expectMinutes(await key.asideForMs(), 1);
    await key.wait();
    await key.refuse();
    expectMinutes(await key.asideForMs(), 5);
  });

  it('begins anew once it has served again', async () => {
    const key = await withKey();
    await key.refuse();
    await key.wait();
    await key.refuse();
    await key.use();
    expect(await key.asideForMs()).toBeUndefined();
    expect(await key.view()).toMatchObject({ test_status: 'valid', test_message: null });
    await key.refuse();
    expectMinutes(await key.asideForMs(), 1);
  });
});

describe('a key that serves', () => {
  it('shows when, and is not called tested by that', async () => {
    const key = await withKey();
    expect(await key.view()).toMatchObject({ last_used: null, test_status: 'untested' });
    await key.use();
    const view = await key.view();
    expect(Math.abs(Date.parse(view?.last_used ?? '') - Date.now())).toBeLessThan(20_000);
    expect(view).toMatchObject({ test_status: 'untested', last_tested: null });
  });
});

describe('a key that does not decrypt', () => {
  it('is shown as undecryptable, is not set aside, and recovers with its first use', async () => {
    const key = await withKey();
    await key.undecryptable();
    expect(await key.view()).toMatchObject({ test_status: 'undecryptable' });
    expect(await key.asideForMs()).toBeUndefined();
    await key.use();
    expect(await key.view()).toMatchObject({ test_status: 'valid', test_message: null });
  });

  it('is noted once: what says nothing new touches no row', async () => {
    const key = await withKey();
    await key.refuse();
    await key.undecryptable();
    const noted = await key.version();
    expect(noted).toHaveLength(1);
    await key.undecryptable();
    expect(await key.version()).toEqual(noted);
  });

  it('is noted once also by requests at the same time', async () => {
    const key = await withKey();
    await Promise.all(Array.from({ length: 6 }, () => key.undecryptable()));
    expect(await key.version()).toHaveLength(1);
    expect(await key.view()).toMatchObject({ test_status: 'undecryptable' });
  });
});
