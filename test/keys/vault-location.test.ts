import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { z } from 'zod';
import { writeVaultId } from '../../src/keys/vault-index-store.ts';
import { assertVaultLocation, lockVaultLocation } from '../../src/keys/vault-location.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import { startApp } from '../support/app.ts';
import { createDatabase } from '../support/stack.ts';

const VAULT_REALM = { realm: 'vault', recordIsUser: false };
const OTHER_REALM = { realm: 'valut', recordIsUser: false };
const ONE_REALM = { realm: 'people', recordIsUser: true };

let database: Database;

beforeEach(async () => {
  const { appUrl } = await createDatabase();
  database = openDatabase({
    url: appUrl,
    max: 8,
    applicationName: 'vault-place-test',
    log: createLog('silent'),
  });
});

afterEach(() => database.close());

/** What a first write leaves behind. */
async function storeRecord(): Promise<void> {
  const owner = `user:${randomUUID()}` as const;
  await database.withOwner(owner, (sql) => writeVaultId(sql, owner, randomUUID()));
}

/** Runs SQL as the role that owns the schema, which sees all rows. */
async function asOwner(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}

describe('the place of the vault', () => {
  it('is written down at the first start, also when several start at once', async () => {
    await Promise.all(Array.from({ length: 6 }, () => assertVaultLocation(database, VAULT_REALM)));
    await storeRecord();
    await assertVaultLocation(database, VAULT_REALM);
    await expect(assertVaultLocation(database, OTHER_REALM)).rejects.toThrow();
  });

  it('in another realm refuses the start while anybody has a record, naming both and what to do', async () => {
    await assertVaultLocation(database, VAULT_REALM);
    await storeRecord();
    await expect(assertVaultLocation(database, OTHER_REALM)).rejects.toThrow(
      'The stored keys lie in the realm "vault" in records of their own, but the configuration says the realm ' +
        '"valut" in records of their own. Set KEYCLOAK_VAULT_REALM back to "vault", or move the records there: ' +
        'npm run ops -- vault move (docs/operations.md).',
    );
    // The refusal itself changes nothing.
    await assertVaultLocation(database, VAULT_REALM);
  });

  it('may not change between people’s own users and records of their own either', async () => {
    await assertVaultLocation(database, ONE_REALM);
    await storeRecord();
    await expect(assertVaultLocation(database, { realm: 'people', recordIsUser: false })).rejects.toThrow(
      'Set KEYCLOAK_REALM back to "people", or',
    );
    await expect(assertVaultLocation(database, VAULT_REALM)).rejects.toThrow(
      'Set KEYCLOAK_VAULT_REALM back to "people", which is KEYCLOAK_REALM too, or',
    );
    await assertVaultLocation(database, ONE_REALM);
  });

  it('may change while nobody has a record, and counts from then on', async () => {
    await assertVaultLocation(database, OTHER_REALM);
    await assertVaultLocation(database, VAULT_REALM);
    await storeRecord();
    await assertVaultLocation(database, VAULT_REALM);
    await expect(assertVaultLocation(database, OTHER_REALM)).rejects.toThrow('"vault"');
  });
});

describe('a start while the vault is being moved', () => {
  it('is refused in words once it has waited some seconds, and works when the move is over', async () => {
    await assertVaultLocation(database, VAULT_REALM);
    const [held, release] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
    const move = database.transaction(async (sql) => {
      await lockVaultLocation(sql);
      held.resolve(undefined);
      await release.promise;
    });
    await held.promise;
    await expect(assertVaultLocation(database, VAULT_REALM)).rejects.toThrow(
      'The stored keys are being moved',
    );
    release.resolve(undefined);
    await move;
    await assertVaultLocation(database, VAULT_REALM);
  });
});

describe('the question whether there are records', () => {
  const ask = (sql: Pick<Database, 'rows'>) =>
    sql.rows(z.object({ answer: z.boolean() }), 'SELECT has_vault_records() AS answer');

  it('is answered across owners, whose rows stay hidden', async () => {
    expect(await ask(database)).toEqual([{ answer: false }]);
    await storeRecord();
    expect(await ask(database)).toEqual([{ answer: true }]);
    expect(await database.rows(z.object({}), 'SELECT FROM owners')).toEqual([]);
  });

  it('cannot be turned to another table of that name', async () => {
    await storeRecord();
    await database.withConnection(async (connection) => {
      await connection.run('CREATE TEMP TABLE owners (vault_id text)');
      await connection.run('SET search_path = pg_temp');
      const answer = z.object({ answer: z.boolean() });
      expect(await connection.rows(answer, 'SELECT public.has_vault_records() AS answer')).toEqual([
        { answer: true },
      ]);
      await connection.run('RESET search_path');
      await connection.run('DROP TABLE pg_temp.owners');
    });
  });
});

describe('the app', () => {
  it('does not start where the vault is in another place than the keys, and starts once that is undone', async () => {
    const first = await startApp();
    const { realm, vaultRealm } = first.config.keycloak;
    expect(realm).not.toBe(vaultRealm);
    await first.stop();
    const own = (text: string) => asOwner(first.ownerDatabaseUrl, text);
    await own(`INSERT INTO owners (owner, vault_id) VALUES ('user:somebody', 'a-record')`);
    await own(`UPDATE vault_place SET realm = 'where-the-keys-are'`);
    await expect(startApp({ shared: first })).rejects.toThrow(
      `Set KEYCLOAK_VAULT_REALM back to "where-the-keys-are"`,
    );
    await own(`UPDATE vault_place SET realm = '${vaultRealm}'`);
    await (await startApp({ shared: first })).stop();
  });
});
