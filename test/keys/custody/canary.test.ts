import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { canaryIndex, checkCanary, resealCanary } from '../../../src/keys/custody/canary.ts';
import { rememberVaultId } from '../../../src/keys/owners-store.ts';
import { createDatabase as openDatabase, type Database } from '../../../src/lib/database.ts';
import { UnfitError } from '../../../src/lib/errors.ts';
import { createKeyring } from '../../../src/lib/keyring.ts';
import { createLog } from '../../../src/lib/log.ts';
import { fernetKey, startApp } from '../../support/app.ts';
import { addKey, openAiKey } from '../../support/key.ts';
import { createDatabase, createUser } from '../../support/stack.ts';
import { startUpstream } from '../../support/upstream.ts';
import { newOwner } from './rig.ts';

let database: Database;

beforeEach(async () => {
  const { appUrl } = await createDatabase();
  database = openDatabase({ url: appUrl, max: 8, applicationName: 'canary-test', log: createLog('silent') });
});
afterEach(() => database.close());

/** What a first write of a key leaves behind. */
async function storeRecord(): Promise<void> {
  const owner = newOwner();
  await database.withOwner(owner, (sql) => rememberVaultId(sql, owner, 'a-record'));
}

describe('the canary', () => {
  it('is made at the first start, one row also when several start at once', async () => {
    const rings = Array.from({ length: 6 }, () => createKeyring([fernetKey()]));
    await Promise.all(rings.map((ring) => checkCanary(database, ring)));
    const rows = await database.rows(z.object({ token: z.string() }), 'SELECT token FROM encryption_canary');
    expect(rows).toHaveLength(1);
  });

  it('lets only one of several rings start that meet on it when there are records', async () => {
    await storeRecord();
    const rings = Array.from({ length: 6 }, () => createKeyring([fernetKey()]));
    const outcomes = await Promise.allSettled(rings.map((ring) => checkCanary(database, ring)));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('refuses, in words, a ring that does not open it while anybody has a record, and is not changed', async () => {
    const [oldKey, newKey] = [fernetKey(), fernetKey()];
    await checkCanary(database, createKeyring([oldKey]));
    await storeRecord();
    const refused = checkCanary(database, createKeyring([newKey]));
    await expect(refused).rejects.toBeInstanceOf(UnfitError);
    await expect(refused).rejects.toThrow('ENCRYPTION_KEY does not fit the stored keys');
    await expect(refused).rejects.toThrow('ENCRYPTION_KEY=new,old');
    await expect(refused).rejects.not.toThrow(newKey);
    await checkCanary(database, createKeyring([newKey, oldKey]));
    await checkCanary(database, createKeyring([oldKey]));
  });

  it('is made anew for another key while nobody has a record', async () => {
    const [oldRing, newRing] = [createKeyring([fernetKey()]), createKeyring([fernetKey()])];
    await checkCanary(database, oldRing);
    await checkCanary(database, newRing);
    await storeRecord();
    await checkCanary(database, newRing);
    await expect(checkCanary(database, oldRing)).rejects.toThrow('does not fit');
  });

  it('needs the first key alone once it was sealed anew', async () => {
    const [oldKey, newKey] = [fernetKey(), fernetKey()];
    await checkCanary(database, createKeyring([oldKey]));
    await storeRecord();
    const ring = createKeyring([newKey, oldKey]);
    expect(await canaryIndex(database, ring)).toBe(1);
    await resealCanary(database, ring);
    expect(await canaryIndex(database, ring)).toBe(0);
    await checkCanary(database, createKeyring([newKey]));
    await expect(checkCanary(database, createKeyring([oldKey]))).rejects.toThrow('does not fit');
  });
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
    const owner = newOwner();
    await own.withOwner(owner, (sql) => rememberVaultId(sql, owner, 'a-record'));
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
    await resealCanary(own, createKeyring([newKey]));
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
