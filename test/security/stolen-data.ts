import { expect } from '@jest/globals';
import { createHmac } from 'node:crypto';
import pg from 'pg';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createSearch } from '../support/evidence/search.ts';
import { adminClient } from '../support/stack.ts';

/** Every row of every table with all columns, as the role that owns the schema reads them: what `pg_dump` writes. */
export async function dumpDatabase(ownerUrl: string): Promise<string> {
  const client = new pg.Client({ connectionString: ownerUrl });
  await client.connect();
  try {
    const tables = await client.query<{ name: string }>(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
       WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`,
    );
    const parts: string[] = [];
    for (const { name } of tables.rows) {
      const { rows } = await client.query<{ row: string }>(`SELECT to_jsonb(t)::text AS row FROM ${name} t`);
      parts.push(name, ...rows.map(({ row }) => row));
    }
    return parts.join('\n');
  } finally {
    await client.end();
  }
}

const PAGE_SIZE = 500;

/**
 * What `kc.sh export` writes of a realm: the realm, its clients with their secrets, all users with all attributes.
 * Without password hashes and signing keys, which a running Keycloak does not show.
 */
export async function exportRealm(realm: string): Promise<string> {
  const admin = await adminClient(realm);
  const whole = await admin.realms.export({ realm, exportClients: true, exportGroupsAndRoles: true });
  const secrets: unknown[] = [];
  for (const { id = '', clientId, publicClient } of await admin.clients.find()) {
    if (publicClient !== true) secrets.push({ clientId, ...(await admin.clients.getClientSecret({ id })) });
  }
  const users: unknown[] = [];
  for (let first = 0; ; first += PAGE_SIZE) {
    const page = await admin.users.find({ first, max: PAGE_SIZE, briefRepresentation: false });
    users.push(...page);
    if (page.length < PAGE_SIZE) break;
  }
  return JSON.stringify({ ...whole, secrets, users });
}

/** What Fernet tokens look like: version, and a time of this century. */
const FERNET_TOKEN = /gAAAAA[\w-]{40,}=*/g;
/** What could be a Fernet key, padded or not. */
const KEY_LIKE = /(?<![\w-])[\w-]{43}(?![\w-])/g;

/** All Fernet tokens in the stolen data. */
export function fernetTokensIn(text: string): string[] {
  return [...new Set(text.match(FERNET_TOKEN))];
}

/**
 * The stolen data holds none of the keys in any encoding, and no candidate key in it decrypts a token in it.
 */
export function expectNoUsableKey(text: string, keys: readonly string[]): void {
  expect(text).not.toBe('');
  const search = createSearch(keys.map((value) => ({ kind: 'provider key', value })));
  search.text('the stolen data', text);
  expect(search.hits).toEqual([]);
  // The last of 43 characters has two bits more than the key; a thief would ignore them.
  const canonical = (key: string) => Buffer.from(key, 'base64url').toString('base64url');
  const candidates = [...new Set(text.match(KEY_LIKE))].map((key) => createKeyring([`${canonical(key)}=`]));
  for (const token of fernetTokensIn(text))
    for (const keyring of candidates) expect(keyring.decrypt(token)).toBeUndefined();
}

/** The stolen data holds all of these texts. A failure names the missing texts only. */
export function expectAllOf(text: string, texts: readonly string[]): void {
  expect(texts.filter((part) => part === '' || !text.includes(part))).toEqual([]);
}

/** The stolen data holds none of these texts, neither as they are nor in JSON encoding. */
export function expectNothingOf(text: string, texts: readonly string[]): void {
  for (const part of texts) {
    expect(part).not.toBe('');
    expect(text.includes(part) || text.includes(JSON.stringify(part).slice(1, -1))).toBe(false);
  }
}

/** A session cookie, signed as by `express-session`. */
export function signedCookie(sessionId: string, secret: string): string {
  const signature = createHmac('sha256', secret).update(sessionId).digest('base64').replace(/=+$/, '');
  return encodeURIComponent(`s:${sessionId}.${signature}`);
}
