import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import type { Principal } from '../../src/http/principal.ts';
import { userOwner } from '../../src/lib/owner.ts';
import { createDatabase } from '../support/database.ts';
import { answer, startUpstream, type Upstream } from '../support/upstream.ts';
import {
  createInstance,
  createPrincipal,
  randomEncryptionKey,
  randomKey,
  type Instance,
} from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';

let upstream: Upstream;
let instance: Instance;
/** Has another encryption key. */
let otherKeyInstance: Instance;
/** Has an address for another provider. */
let otherAddressInstance: Instance;
let principal: Principal;

beforeAll(async () => {
  upstream = await startUpstream();
  upstream.answerAll(answer.error(401));
  const { appUrl } = await createDatabase();
  const options = {
    ...createInstanceOptions(appUrl),
    upstreams: { openai: upstream.url, ollama: upstream.url },
  };
  instance = createInstance(options);
  otherKeyInstance = createInstance({ ...options, encryptionKeys: [randomEncryptionKey()] });
  otherAddressInstance = createInstance({ ...options, upstreams: { custom: upstream.url } });
});
beforeEach(() => {
  principal = createPrincipal();
});
afterAll(async () => {
  await Promise.all([instance, otherKeyInstance, otherAddressInstance].map((each) => each.close()));
  await upstream.stop();
});

/** @returns the id of a stored key. */
async function addKey(provider: string, by = instance): Promise<string> {
  return (await by.keys.add(principal, { provider, key: randomKey() }, 'r')).key.id;
}

const test = (provider: string, id?: string) => instance.keys.test(principal, provider, id, 'r');

async function countTestRows(): Promise<number> {
  const rows = await instance.database.withOwner(userOwner(principal.user.id), (sql) =>
    sql.rows(z.object({}), `SELECT FROM audit_events WHERE action = 'key.tested'`),
  );
  return rows.length;
}

const REFUSED = { code: 'rate_limited', status: 429 };

describe('the tests of a user', () => {
  it.each([
    ['makes one call', 'openai', () => instance, 20, 20],
    ['makes a second call, with a random key', 'ollama', () => instance, 10, 20],
    ['makes no call, since the key cannot be decrypted', 'openai', () => otherKeyInstance, 20, 0],
    ['makes no call, since the key has no address', 'custom', () => otherAddressInstance, 20, 0],
  ])(
    'are limited, and so are their rows in the audit trail, where each %s',
    async (_name, provider, getStoringInstance, tests, calls) => {
      const id = await addKey(provider, getStoringInstance());
      const callsBefore = upstream.requests.length;
      for (let count = 0; count < tests; count += 1) await test(provider, id);
      const error: unknown = await test(provider, id).catch((reason: unknown) => reason);
      expect(error).toMatchObject(REFUSED);
      const { headers } = error as { headers: Record<string, string> };
      expect(Number(headers['retry-after'])).toBeGreaterThan(0);
      expect(Number(headers['retry-after'])).toBeLessThanOrEqual(60);
      expect([await countTestRows(), upstream.requests.length - callsBefore]).toEqual([tests, calls]);
      principal = createPrincipal();
      expect((await test('openai', await addKey('openai'))).status).toBe('invalid');
    },
  );

  it('end at the limit among the keys of a provider, and store the results before it', async () => {
    const id = await addKey('openai', otherKeyInstance);
    for (let count = 0; count < 19; count += 1) await test('openai', id);
    await instance.keys.remove(principal, 'openai', id, 'r');
    for (let count = 0; count < 2; count += 1) await addKey('openai');
    await expect(test('openai')).rejects.toMatchObject(REFUSED);
    expect(await countTestRows()).toBe(20);
    const listed = await instance.keys.listKeys(principal);
    expect(listed.filter(({ test_status }) => test_status === 'invalid')).toHaveLength(1);
  });

  it('count where a key is tested before it is stored', async () => {
    const id = await addKey('openai', otherKeyInstance);
    for (let count = 0; count < 19; count += 1) await test('openai', id);
    const add = () =>
      instance.keys.add(principal, { provider: 'openai', key: randomKey(), validate: true }, 'r');
    await expect(add()).rejects.toMatchObject({ code: 'key_test_failed' });
    await expect(add()).rejects.toMatchObject(REFUSED);
    expect(await countTestRows()).toBe(20);
  });
});
