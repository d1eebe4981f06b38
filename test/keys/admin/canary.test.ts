import { beforeEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import type { KeyAdminContext } from '../../../src/cli/context.ts';
import { findCanaryKeyIndex, assertCanary, reencryptCanary } from '../../../src/keys/admin/canary.ts';
import { rotateKeys } from '../../../src/keys/admin/rotate.ts';
import { writeVaultId } from '../../../src/keys/vault-index-store.ts';
import { createDatabase as openDatabase, type Database } from '../../../src/lib/postgres/database.ts';
import { UnfitError } from '../../../src/lib/errors.ts';
import { createKeyring, type Keyring } from '../../../src/lib/crypto/keyring.ts';
import { createLog } from '../../../src/lib/log.ts';
import { fernetKey, startApp } from '../../support/app.ts';
import { addKey, openAiKey } from '../../support/key.ts';
import { createDatabase, createUser } from '../../support/stack.ts';
import { startUpstream } from '../../support/upstream.ts';
import { createRealmUser, createFixture, randomOwner, readStoredPool, storeKey } from './fixture.ts';

const home = createFixture();
let custody: KeyAdminContext;
let database: Database;

beforeEach(() => {
  custody = home.open();
  ({ database } = custody);
});

/** What a start of the app does with its ENCRYPTION_KEY. */
const start = (keyring: Keyring, on = custody) => assertCanary({ ...on, keyring });

/** What a first write of a key leaves behind. */
async function storeRecord(): Promise<void> {
  const owner = randomOwner();
  await database.withOwner(owner, (sql) => writeVaultId(sql, owner, 'a-record'));
}

describe('the canary', () => {
  it('is made at the first start, one row also when several start at once', async () => {
    const rings = Array.from({ length: 6 }, () => createKeyring([fernetKey()]));
    await Promise.all(rings.map((ring) => start(ring)));
    const rows = await database.rows(z.object({ token: z.string() }), 'SELECT token FROM encryption_canary');
    expect(rows).toHaveLength(1);
  });

  it('lets only one of several rings start that meet on it when there are records', async () => {
    await storeRecord();
    const rings = Array.from({ length: 6 }, () => createKeyring([fernetKey()]));
    const outcomes = await Promise.allSettled(rings.map((ring) => start(ring)));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('refuses, in words, a ring that does not open it while anybody has a record, and is not changed', async () => {
    const [oldKey, newKey] = [fernetKey(), fernetKey()];
    await start(createKeyring([oldKey]));
    await storeRecord();
    const refused = start(createKeyring([newKey]));
    await expect(refused).rejects.toBeInstanceOf(UnfitError);
    await expect(refused).rejects.toThrow('ENCRYPTION_KEY does not fit the stored keys');
    await expect(refused).rejects.toThrow('ENCRYPTION_KEY=new,old');
    await expect(refused).rejects.not.toThrow(newKey);
    await start(createKeyring([newKey, oldKey]));
    await start(createKeyring([oldKey]));
  });

  it('is made anew for another key while nobody has a record', async () => {
    const [oldRing, newRing] = [createKeyring([fernetKey()]), createKeyring([fernetKey()])];
    await start(oldRing);
    await start(newRing);
    await storeRecord();
    await start(newRing);
    await expect(start(oldRing)).rejects.toThrow('does not fit');
  });

  it('needs the first key alone once it was sealed anew', async () => {
    const [oldKey, newKey] = [fernetKey(), fernetKey()];
    await start(createKeyring([oldKey]));
    await storeRecord();
    const ring = createKeyring([newKey, oldKey]);
    expect(await findCanaryKeyIndex(database, ring)).toBe(1);
    await reencryptCanary(database, ring);
    expect(await findCanaryKeyIndex(database, ring)).toBe(0);
    await start(createKeyring([newKey]));
    await expect(start(createKeyring([oldKey]))).rejects.toThrow('does not fit');
  });
  describe('beside keys of the vault', () => {
    it.each(['in records of their own', 'with the people themselves'])(
      'that it does not open, %s, is not made on a new database, nor made anew, until the loss is accepted',
      async (layout) => {
        const isOneRealm = layout === 'with the people themselves';
        const change = isOneRealm ? { vaultRealm: home.realms.people } : {};
        const lost = home.open(change);
        const owner = isOneRealm ? (await createRealmUser(home.realms)).owner : randomOwner();
        await storeKey(lost, owner);
        const databaseUrl = (await createDatabase()).appUrl;
        const wrongKey = fernetKey();
        const wrong = home.open({ ...change, databaseUrl, encryptionKeys: [wrongKey] });
        const rotate = (acceptLoss: boolean) =>
          rotateKeys(wrong, { acceptLoss, onProgress: () => undefined });
        await expect(assertCanary(wrong)).rejects.toThrow('ENCRYPTION_KEY does not fit the stored keys');
        await expect(rotate(false)).rejects.toThrow('does not fit');
        expect(await findCanaryKeyIndex(wrong.database, wrong.keyring)).toBeUndefined();
        // A canary of before that nobody's records back is not replaced either.
        const foreign = createKeyring([fernetKey()]);
        await reencryptCanary(wrong.database, foreign);
        await expect(assertCanary(wrong)).rejects.toThrow('does not fit');
        expect(await findCanaryKeyIndex(wrong.database, foreign)).toBe(0);
        expect(await rotate(true)).toMatchObject({ isFinished: true });
        await assertCanary(wrong);
      },
    );

    it('of which it opens one is made on a new database', async () => {
      const owner = randomOwner();
      await storeKey(custody, owner);
      const other = home.open({ encryptionKeys: [fernetKey()] });
      await storeKey(other, owner);
      const anew = home.open({ databaseUrl: (await createDatabase()).appUrl });
      await assertCanary(anew);
      expect((await readStoredPool(anew, owner)).keys).toHaveLength(2);
    });
  });
});

describe('the key that seals', () => {
  const [a, b, c] = [fernetKey(), fernetKey(), fernetKey()];
  const startWith = (...keys: string[]) => start(createKeyring(keys));
  const rotate = (...keys: string[]) =>
    rotateKeys(
      { ...custody, keyring: createKeyring(keys) },
      { acceptLoss: false, onProgress: () => undefined },
    );

  it('can be changed process by process before a rotation, there and back', async () => {
    await startWith(a);
    await storeRecord();
    for (const ring of [[a, b], [b, a], [a, b], [a], [b, a]]) await startWith(...ring);
  });

  it('is the first of the rotation from its begin: an older one in front is refused, in words', async () => {
    await startWith(a);
    await storeKey(openedWith(a), randomOwner());
    await startWith(b, a);
    // Cut off as early as can be.
    const cutOff = rotateKeys(
      { ...custody, keyring: createKeyring([b, a]) },
      {
        acceptLoss: false,
        onProgress: () => {
          throw new Error('the power went out');
        },
      },
    );
    await expect(cutOff).rejects.toThrow('the power went out');
    await expect(startWith(a, b)).rejects.toBeInstanceOf(UnfitError);
    await expect(startWith(a, b)).rejects.toThrow('Put the new key first (ENCRYPTION_KEY=new,old)');
    await expect(startWith(a)).rejects.toThrow('seals no more');
    await startWith(b, a);
    expect(await rotate(b, a)).toMatchObject({ isFinished: true });
    await expect(startWith(a, b)).rejects.toThrow('seals no more');
    expect(await findCanaryKeyIndex(database, createKeyring([a, b]))).toBeUndefined();
    await startWith(b, a);
    await startWith(b);
    // The next rotation begins as the first one did.
    await startWith(c, b);
    await startWith(b, c);
    await rotate(c, b);
    for (const ring of [
      [b, c],
      [a, c],
    ])
      await expect(startWith(...ring)).rejects.toThrow('seals no more');
  });

  it('can be an older one again after a rotation that says so', async () => {
    await startWith(a);
    await storeKey(openedWith(a), randomOwner());
    await rotate(b, a);
    expect(await rotate(a, b)).toMatchObject({ resealed: 1, isFinished: true });
    await startWith(a, b);
    await expect(startWith(b, a)).rejects.toThrow('seals no more');
  });

  it('is told from the canary where it was not noted yet', async () => {
    await startWith(b);
    await storeRecord();
    await database.run('UPDATE encryption_canary SET sealing_key = NULL');
    await startWith(c, b);
    await rotateKeys(openedWith(c), { acceptLoss: true, onProgress: () => undefined });
    await expect(startWith(b, c)).rejects.toThrow('seals no more');
  });

  const openedWith = (...encryptionKeys: string[]) => home.open({ encryptionKeys });
});

describe('the app', () => {
  it('does not start on another ENCRYPTION_KEY while there are records, and starts with the old one behind', async () => {
    const first = await startApp();
    const [oldKey = ''] = first.config.encryptionKeys;
    await first.stop();
    const own = openDatabase({
      url: first.databaseUrl,
      max: 1,
      applicationName: 'canary-test',
      log: createLog('silent'),
    });
    const owner = randomOwner();
    await own.withOwner(owner, (sql) => writeVaultId(sql, owner, 'a-record'));
    await own.close();
    const newKey = fernetKey();
    const startWith = (encryptionKey: string) =>
      startApp({ shared: first, env: { ENCRYPTION_KEY: encryptionKey } });
    await expect(startWith(newKey)).rejects.toThrow('ENCRYPTION_KEY does not fit the stored keys');
    await (await startWith(`${newKey},${oldKey}`)).stop();
  });
});

describe('an old key that was taken out of ENCRYPTION_KEY while stored keys need it', () => {
  it('makes them fail when they are used, and nothing takes their place until it is back', async () => {
    const [openai, system] = [await startUpstream(), await startUpstream()];
    const env = {
      UPSTREAM_OPENAI_URL: openai.url,
      DEFAULT_LLM_PROVIDER: 'openrouter',
      DEFAULT_LLM_API_KEY: 'sk-or-the-system-default-key',
      DEFAULT_LLM_BASE_URL: system.url,
      DEFAULT_LLM_MODELS: '*',
    };
    const first = await startApp({ env });
    const user = await createUser({ tier: 'starter' });
    const key = openAiKey();
    await addKey(first, await first.signIn(user), { provider: 'openai', key });
    await first.stop();
    const [oldKey = ''] = first.config.encryptionKeys;
    const newKey = fernetKey();
    const own = openDatabase({
      ...{ url: first.databaseUrl, max: 1, applicationName: 'canary-test', log: createLog('silent') },
    });
    await reencryptCanary(own, createKeyring([newKey]));
    await own.close();

    const ask = async (encryptionKey: string) => {
      const app = await startApp({ shared: first, env: { ...env, ENCRYPTION_KEY: encryptionKey } });
      const answer = await app.call('/v1/chat/completions', {
        method: 'POST',
        session: await app.signIn(user),
        json: { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] },
      });
      const text = await answer.text();
      await app.stop();
      return { status: answer.status, text };
    };
    const refused = await ask(newKey);
    expect(refused.status).toBe(424);
    expect(refused.text).toContain('key_undecryptable');
    expect([openai.requests.length, system.requests.length]).toEqual([0, 0]);
    expect(await ask(`${newKey},${oldKey}`)).toMatchObject({ status: 200 });
    expect(openai.requests.map((request) => request.key)).toEqual([key]);
    expect(system.requests).toEqual([]);
    await Promise.all([openai.stop(), system.stop()]);
  }, 60_000);
});
