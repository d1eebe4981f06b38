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
import { createDatabase } from '../../support/database.ts';
import { createUser } from '../../support/stack.ts';
import { startUpstream } from '../../support/upstream.ts';
import { createRealmUser, createFixture, randomOwner, readStoredPool, storeKey } from './fixture.ts';

const fixture = createFixture();
let context: KeyAdminContext;
let database: Database;

beforeEach(() => {
  context = fixture.open();
  ({ database } = context);
});

/** Checks the canary as a start of the app does. */
const start = (keyring: Keyring, on = context) => assertCanary({ ...on, keyring });

/** Writes a row as the first key write of an owner does. */
async function storeRecord(): Promise<void> {
  const owner = randomOwner();
  await database.withOwner(owner, (sql) => writeVaultId(sql, owner, 'a-record'));
}

describe('the canary', () => {
  it('is created at the first start, as one row even by concurrent starts', async () => {
    const rings = Array.from({ length: 6 }, () => createKeyring([fernetKey()]));
    await Promise.all(rings.map((ring) => start(ring)));
    const rows = await database.rows(z.object({ token: z.string() }), 'SELECT token FROM encryption_canary');
    expect(rows).toHaveLength(1);
  });

  it('lets only one of several concurrent starts with different keyrings succeed when there are records', async () => {
    await storeRecord();
    const rings = Array.from({ length: 6 }, () => createKeyring([fernetKey()]));
    const outcomes = await Promise.allSettled(rings.map((ring) => start(ring)));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('refuses a keyring that cannot decrypt it while there are records, and is not changed', async () => {
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

  it('is replaced for another key while there are no records', async () => {
    const [oldRing, newRing] = [createKeyring([fernetKey()]), createKeyring([fernetKey()])];
    await start(oldRing);
    await start(newRing);
    await storeRecord();
    await start(newRing);
    await expect(start(oldRing)).rejects.toThrow('does not fit');
  });

  it('needs only the first key after its re-encryption', async () => {
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

  describe('with stored keys in the vault', () => {
    it.each(['in a vault realm', 'in one realm'])(
      'that cannot be decrypted, %s, is neither created in a new database nor replaced until the loss is accepted',
      async (layout) => {
        const isOneRealm = layout === 'in one realm';
        const change = isOneRealm ? { vaultRealm: fixture.realms.main } : {};
        const lost = fixture.open(change);
        const owner = isOneRealm ? (await createRealmUser(fixture.realms)).owner : randomOwner();
        await storeKey(lost, owner);
        const databaseUrl = (await createDatabase()).appUrl;
        const wrongKey = fernetKey();
        const wrong = fixture.open({ ...change, databaseUrl, encryptionKeys: [wrongKey] });
        const rotate = (acceptLoss: boolean) =>
          rotateKeys(wrong, { acceptLoss, onProgress: () => undefined });
        await expect(assertCanary(wrong)).rejects.toThrow('ENCRYPTION_KEY does not fit the stored keys');
        await expect(rotate(false)).rejects.toThrow('does not fit');
        expect(await findCanaryKeyIndex(wrong.database, wrong.keyring)).toBeUndefined();
        // An earlier canary without records is not replaced either.
        const otherRing = createKeyring([fernetKey()]);
        await reencryptCanary(wrong.database, otherRing);
        await expect(assertCanary(wrong)).rejects.toThrow('does not fit');
        expect(await findCanaryKeyIndex(wrong.database, otherRing)).toBe(0);
        expect(await rotate(true)).toMatchObject({ isFinished: true });
        await assertCanary(wrong);
      },
    );

    it('of which one can be decrypted is created in a new database', async () => {
      const owner = randomOwner();
      await storeKey(context, owner);
      const other = fixture.open({ encryptionKeys: [fernetKey()] });
      await storeKey(other, owner);
      const restored = fixture.open({ databaseUrl: (await createDatabase()).appUrl });
      await assertCanary(restored);
      expect((await readStoredPool(restored, owner)).keys).toHaveLength(2);
    });
  });
});

describe('the first encryption key', () => {
  const [a, b, c] = [fernetKey(), fernetKey(), fernetKey()];
  const startWith = (...keys: string[]) => start(createKeyring(keys));
  const rotate = (...keys: string[]) =>
    rotateKeys(
      { ...context, keyring: createKeyring(keys) },
      { acceptLoss: false, onProgress: () => undefined },
    );

  it('can be changed process by process before a rotation, in both directions', async () => {
    await startWith(a);
    await storeRecord();
    for (const ring of [[a, b], [b, a], [a, b], [a], [b, a]]) await startWith(...ring);
  });

  it('must be the new key from the start of a rotation: an older key in front is refused', async () => {
    await startWith(a);
    await storeKey(openWith(a), randomOwner());
    await startWith(b, a);
    // Interrupted as early as possible.
    const interrupted = rotateKeys(
      { ...context, keyring: createKeyring([b, a]) },
      {
        acceptLoss: false,
        onProgress: () => {
          throw new Error('interrupted');
        },
      },
    );
    await expect(interrupted).rejects.toThrow('interrupted');
    await expect(startWith(a, b)).rejects.toBeInstanceOf(UnfitError);
    await expect(startWith(a, b)).rejects.toThrow('Put the new key first (ENCRYPTION_KEY=new,old)');
    await expect(startWith(a)).rejects.toThrow('no longer encrypts');
    await startWith(b, a);
    expect(await rotate(b, a)).toMatchObject({ isFinished: true });
    await expect(startWith(a, b)).rejects.toThrow('no longer encrypts');
    expect(await findCanaryKeyIndex(database, createKeyring([a, b]))).toBeUndefined();
    await startWith(b, a);
    await startWith(b);
    // The next rotation starts like the first one.
    await startWith(c, b);
    await startWith(b, c);
    await rotate(c, b);
    for (const ring of [
      [b, c],
      [a, c],
    ])
      await expect(startWith(...ring)).rejects.toThrow('no longer encrypts');
  });

  it('can be an older key again after a rotation to it', async () => {
    await startWith(a);
    await storeKey(openWith(a), randomOwner());
    await rotate(b, a);
    expect(await rotate(a, b)).toMatchObject({ reencrypted: 1, isFinished: true });
    await startWith(a, b);
    await expect(startWith(b, a)).rejects.toThrow('no longer encrypts');
  });

  it('is read from the canary where it is not stored yet', async () => {
    await startWith(b);
    await storeRecord();
    await database.run('UPDATE encryption_canary SET sealing_key = NULL');
    await startWith(c, b);
    await rotateKeys(openWith(c), { acceptLoss: true, onProgress: () => undefined });
    await expect(startWith(b, c)).rejects.toThrow('no longer encrypts');
  });

  const openWith = (...encryptionKeys: string[]) => fixture.open({ encryptionKeys });
});

describe('the app', () => {
  it('does not start with another ENCRYPTION_KEY while there are records, and starts with the old key as second one', async () => {
    const first = await startApp();
    const [oldKey = ''] = first.config.encryptionKeys;
    await first.stop();
    const database = openDatabase({
      url: first.databaseUrl,
      max: 1,
      applicationName: 'canary-test',
      log: createLog('silent'),
    });
    const owner = randomOwner();
    await database.withOwner(owner, (sql) => writeVaultId(sql, owner, 'a-record'));
    await database.close();
    const newKey = fernetKey();
    const startWith = (encryptionKey: string) =>
      startApp({ shared: first, env: { ENCRYPTION_KEY: encryptionKey } });
    await expect(startWith(newKey)).rejects.toThrow('ENCRYPTION_KEY does not fit the stored keys');
    await (await startWith(`${newKey},${oldKey}`)).stop();
  });
});

describe('an old key removed from ENCRYPTION_KEY while stored keys need it', () => {
  it('makes requests with these keys fail without a fallback until it is restored', async () => {
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
    const database = openDatabase({
      ...{ url: first.databaseUrl, max: 1, applicationName: 'canary-test', log: createLog('silent') },
    });
    await reencryptCanary(database, createKeyring([newKey]));
    await database.close();

    const chat = async (encryptionKey: string) => {
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
    const refused = await chat(newKey);
    expect(refused.status).toBe(424);
    expect(refused.text).toContain('key_undecryptable');
    expect([openai.requests.length, system.requests.length]).toEqual([0, 0]);
    expect(await chat(`${newKey},${oldKey}`)).toMatchObject({ status: 200 });
    expect(openai.requests.map((request) => request.key)).toEqual([key]);
    expect(system.requests).toEqual([]);
    await Promise.all([openai.stop(), system.stop()]);
  }, 60_000);
});
