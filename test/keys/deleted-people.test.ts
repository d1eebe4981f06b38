import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createDatabase as openDatabase } from '../../src/lib/database.ts';
import { createLog } from '../../src/lib/log.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminClient, createUser, stack } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { readVaultRecord } from '../support/vault-record.ts';

let app: TestApp;

beforeAll(async () => {
  app = await startApp();
});
afterAll(() => app.stop());

describe('a person whom an administrator deletes', () => {
  it('leaves no vault record behind, and the trail says why', async () => {
    const [user, other] = [await createUser({ tier: 'starter' }), await createUser({ tier: 'starter' })];
    for (const person of [user, other])
      await addKey(app, await app.signIn(person), { provider: 'openai', key: openAiKey() });
    const { id } = await readVaultRecord(user);
    const people = await adminClient(stack.keycloak.realm);
    await people.users.del({ id: user.id });

    const vault = await adminClient(stack.keycloak.vaultRealm);
    await until(async () => ((await vault.users.findOne({ id })) ? undefined : true));
    const database = openDatabase({
      ...{ url: app.databaseUrl, max: 1, applicationName: 'test', log: createLog('silent') },
    });
    const owner = `user:${user.id}`;
    const row = z.object({ actor: z.string(), action: z.string(), object: z.string() });
    const trail = await until(async () => {
      const rows = await database.withOwner(owner, (sql) =>
        sql.rows(row, `SELECT actor, action, object FROM audit_events WHERE action LIKE 'vault.%'`),
      );
      return rows.length > 0 ? rows : undefined;
    });
    await database.close();
    expect(trail).toEqual([{ actor: 'system:keycloak', action: 'vault.purged', object: `vault:${id}` }]);
    expect((await readVaultRecord(other)).attributes['byok_openai']).toHaveLength(1);
  });
});
