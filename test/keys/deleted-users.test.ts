import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createDatabase as openDatabase } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminClient, createUser, stack, type TestUser } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { createVaultRealm, type VaultRealm } from '../support/vault-realm.ts';
import { readVaultRecord } from '../support/vault-record.ts';

let app: TestApp;
let vaultRealm: VaultRealm;

beforeAll(async () => {
  // With a vault of its own: the apps of other tests would delete the record first.
  vaultRealm = await createVaultRealm();
  // Nothing listens on this port, so a key test ends at once and its result is stored.
  const env = { KEYCLOAK_VAULT_REALM: vaultRealm.realm, UPSTREAM_OPENAI_URL: 'http://127.0.0.1:1/v1' };
  app = await startApp({ env });
});
afterAll(async () => {
  await app.stop();
  await vaultRealm.drop();
});

const readRecord = (user: TestUser) => readVaultRecord(user, vaultRealm.realm);

describe('a user who is deleted by an administrator', () => {
  it('leaves no vault record, and the audit trail contains the reason', async () => {
    const [user, other] = [await createUser({ tier: 'starter' }), await createUser({ tier: 'starter' })];
    for (const each of [user, other])
      await addKey(app, await app.signIn(each), { provider: 'openai', key: openAiKey() });
    const { id } = await readRecord(user);
    const database = openDatabase({
      ...{ url: app.databaseUrl, max: 1, applicationName: 'test', log: createLog('silent') },
    });
    const owner = `user:${user.id}` as const;
    const response = { owner, id: 'resp_1', provider: 'openai', key_id: 'k', model: 'm' };
    await database.run('SELECT record_response($1)', [JSON.stringify(response)]);
    const mainRealm = await adminClient(stack.keycloak.realm);
    await mainRealm.users.del({ id: user.id });

    const vault = await adminClient(vaultRealm.realm);
    await until(async () => ((await vault.users.findOne({ id })) ? undefined : true));
    const row = z.object({ actor: z.string(), action: z.string(), object: z.string() });
    const trail = await until(async () => {
      const rows = await database.withOwner(owner, (sql) =>
        sql.rows(row, `SELECT actor, action, object FROM audit_events WHERE action LIKE 'vault.%'`),
      );
      return rows.length > 0 ? rows : undefined;
    });
    const findResponses = () => database.withOwner(owner, (sql) => sql.run('SELECT FROM stored_responses'));
    await until(findResponses, (count) => count === 0);
    await database.close();
    expect(trail).toEqual([{ actor: 'system:keycloak', action: 'vault.purged', object: `vault:${id}` }]);
    expect((await readRecord(other)).attributes['byok_openai']).toHaveLength(1);
  });

  it('leaves no key status, even if the vault record was deleted before', async () => {
    const user = await createUser({ tier: 'starter' });
    const session = await app.signIn(user);
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    await app.call('/api/v1/byok/keys/test/openai', { method: 'POST', session });
    const vault = await adminClient(vaultRealm.realm);
    await vault.users.del({ id: (await readRecord(user)).id });
    await until(() => app.events('vault_record_deleted').length > 0);
    const database = openDatabase({
      ...{ url: app.databaseUrl, max: 1, applicationName: 'test', log: createLog('silent') },
    });
    const countStatuses = async () => {
      const rows = await database.withOwner(`user:${user.id}`, (sql) =>
        sql.rows(z.object({}), 'SELECT FROM provider_key_facts'),
      );
      return rows.length;
    };
    expect(await countStatuses()).toBe(1);
    await (await adminClient(stack.keycloak.realm)).users.del({ id: user.id });
    await until(countStatuses, (count) => count === 0);
    await database.close();
  });
});
