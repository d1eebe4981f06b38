import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { z } from 'zod';
import { writeVaultId } from '../../src/keys/vault-index-store.ts';
import { assertVaultLocation, lockVaultLocation } from '../../src/keys/vault-location.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import { startApp } from '../support/app.ts';
import { createDatabase } from '../support/database.ts';

const VAULT_REALM = { realm: 'vault', recordIsUser: false };
const OTHER_REALM = { realm: 'valut', recordIsUser: false };
const ONE_REALM = { realm: 'main', recordIsUser: true };

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

/** Writes a row as the first key write of an owner does. */
async function storeRecord(): Promise<void> {
  const owner = `user:${randomUUID()}` as const;
  await database.withOwner(owner, (sql) => writeVaultId(sql, owner, randomUUID()));
}

/** Runs SQL as the schema owner, which sees all rows. */
async function runAsOwner(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}

describe('the stored vault location', () => {
  it('is written at the first start, also by concurrent starts', async () => {
    await Promise.all(Array.from({ length: 6 }, () => assertVaultLocation(database, VAULT_REALM)));
    await storeRecord();
    await assertVaultLocation(database, VAULT_REALM);
    await expect(assertVaultLocation(database, OTHER_REALM)).rejects.toThrow();
  });

  it('prevents a start with another realm while there are vault records, naming both realms and what to do', async () => {
    await assertVaultLocation(database, VAULT_REALM);
    await storeRecord();
    await expect(assertVaultLocation(database, OTHER_REALM)).rejects.toThrow(
      'The stored keys are in the realm "vault" in separate vault records, but the configuration names the realm ' +
        '"valut" in separate vault records. Set KEYCLOAK_VAULT_REALM back to "vault", or move the records there: ' +
        'npm run ops -- vault move (docs/operations.md).',
    );
    // A refusal changes nothing.
    await assertVaultLocation(database, VAULT_REALM);
  });

  it('prevents a start with the other layout while there are vault records', async () => {
    await assertVaultLocation(database, ONE_REALM);
    await storeRecord();
    await expect(assertVaultLocation(database, { realm: 'main', recordIsUser: false })).rejects.toThrow(
      'Set KEYCLOAK_REALM back to "main", or',
    );
    await expect(assertVaultLocation(database, VAULT_REALM)).rejects.toThrow(
      'Set KEYCLOAK_VAULT_REALM back to "main", which is KEYCLOAK_REALM too, or',
    );
    await assertVaultLocation(database, ONE_REALM);
  });

  it('may change while there are no vault records', async () => {
    await assertVaultLocation(database, OTHER_REALM);
    await assertVaultLocation(database, VAULT_REALM);
    await storeRecord();
    await assertVaultLocation(database, VAULT_REALM);
    await expect(assertVaultLocation(database, OTHER_REALM)).rejects.toThrow('"vault"');
  });
});

describe('a start during a move of the vault', () => {
  it('is refused after some seconds of waiting, and works after the move', async () => {
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

describe('has_vault_records()', () => {
  const hasRecords = (sql: Pick<Database, 'rows'>) =>
    sql.rows(z.object({ answer: z.boolean() }), 'SELECT has_vault_records() AS answer');

  it('counts rows of all owners, which stay hidden', async () => {
    expect(await hasRecords(database)).toEqual([{ answer: false }]);
    await storeRecord();
    expect(await hasRecords(database)).toEqual([{ answer: true }]);
    expect(await database.rows(z.object({}), 'SELECT FROM owners')).toEqual([]);
  });

  it('cannot be redirected to another table with the same name', async () => {
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
  it('does not start with another vault location, and starts when the location is correct again', async () => {
    const first = await startApp();
    const { realm, vaultRealm } = first.config.keycloak;
    expect(realm).not.toBe(vaultRealm);
    await first.stop();
    const run = (sql: string) => runAsOwner(first.ownerDatabaseUrl, sql);
    await run(`INSERT INTO owners (owner, vault_id) VALUES ('user:another', 'a-record')`);
    await run(`UPDATE vault_place SET realm = 'where-the-keys-are'`);
    await expect(startApp({ shared: first })).rejects.toThrow(
      `Set KEYCLOAK_VAULT_REALM back to "where-the-keys-are"`,
    );
    await run(`UPDATE vault_place SET realm = '${vaultRealm}'`);
    await (await startApp({ shared: first })).stop();
  });
});
