import type KcAdminClient from '@keycloak/keycloak-admin-client';
import pg from 'pg';
import { createKeyring } from '../../../src/lib/crypto/keyring.ts';
import { withDatabase } from '../postgres-and-keycloak.ts';
import type { Secret } from './kinds.ts';

/** End of the place of session rows. */
export const SESSIONS = 'table public.sessions';

/** Receives one part of a dump. @param place names the part in a hit */
export type DumpSink = (place: string, text: string) => void;

const CONCURRENCY = 4;

/** Dumps all rows of all tables of these databases as JSON, except session ids, which are stored by design. */
export async function dumpDatabases(
  superuserUrl: string,
  names: readonly string[],
  take: DumpSink,
): Promise<void> {
  await withClient(superuserUrl, async (client) => {
    // A test may have blocked its database and failed before unblocking it.
    const { rows } = await client.query<{ name: string }>(
      'SELECT datname AS name FROM pg_database WHERE NOT datallowconn AND datname = ANY($1)',
      [names],
    );
    for (const { name } of rows) await client.query(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS true`);
  });
  const waiting = [...names];
  const work = async () => {
    for (let name = waiting.pop(); name !== undefined; name = waiting.pop())
      await dumpDatabase(withDatabase(superuserUrl, name), name, take);
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, work));
}

async function dumpDatabase(url: string, name: string, take: DumpSink): Promise<void> {
  await withClient(url, async (client) => {
    const tables = await client.query<{ table: string }>(
      `SELECT format('%I.%I', schemaname, tablename) AS table FROM pg_tables
       WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`,
    );
    for (const { table } of tables.rows) {
      const { rows } = await client.query<{ row: string }>(
        `SELECT (to_jsonb(t) - 'sid')::text AS row FROM ${table} t`,
      );
      take(`database ${name}, table ${table}`, rows.map(({ row }) => row).join('\n'));
    }
  });
}

/**
 * Decrypts the tokens in session rows, which are secrets of the run, too.
 * @param sessionDumps the session rows of one database each. They share a key, so the last key that fitted is tried
 *   first: there are some hundred keys.
 */
export function decryptSessionTokens(
  sessionDumps: readonly string[],
  encryptionKeys: readonly string[],
): Secret[] {
  const keyrings = encryptionKeys.map((key) => createKeyring([key]));
  const decrypt = (token: string) => {
    const index = keyrings.findIndex((keyring) => keyring.findKeyIndex(token) !== undefined);
    const [keyring] = index < 0 ? [] : keyrings.splice(index, 1);
    if (keyring !== undefined) keyrings.unshift(keyring);
    return keyring?.decrypt(token);
  };
  return sessionDumps.flatMap((dump) =>
    [...dump.matchAll(/gAAAAA[\w-]+=*/g)].flatMap(([token]) => tokensIn(decrypt(token))),
  );
}

function tokensIn(text: string | undefined): Secret[] {
  if (text === undefined) return [];
  const { idToken, refreshToken } = JSON.parse(text) as { idToken?: string; refreshToken?: string };
  return [
    ...(idToken === undefined ? [] : [{ kind: 'ID token', value: idToken } as const]),
    ...(refreshToken === undefined ? [] : [{ kind: 'refresh token', value: refreshToken } as const]),
  ];
}

const PAGE = 500;

/** Dumps a realm's users (all attributes), clients (without their secrets) and events as JSON. */
export async function dumpRealm(admin: KcAdminClient, realm: string, take: DumpSink): Promise<void> {
  const lists: Record<string, (page: { first: number; max: number }) => Promise<unknown[]>> = {
    users: (page) => admin.users.find({ realm, ...page, briefRepresentation: false }),
    clients: async (page) =>
      (await admin.clients.find({ realm, ...page })).map(({ secret: _secret, ...client }) => client),
    events: (page) => admin.realms.findEvents({ realm, ...page }),
    'admin events': (page) => admin.realms.findAdminEvents({ realm, ...page }),
  };
  for (const [name, list] of Object.entries(lists)) {
    for (let first = 0; ; first += PAGE) {
      const page = await list({ first, max: PAGE });
      take(`Keycloak realm ${realm}, ${name}`, JSON.stringify(page));
      if (page.length < PAGE) break;
    }
  }
}

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
