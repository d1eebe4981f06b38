import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { fetch } from 'undici';
import { encryptSessionTokens } from '../../src/identity/session-tokens.ts';
import { randomId } from '../../src/lib/ids.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { fernetKey } from '../support/app.ts';
import { createEvidence, type Evidence } from '../support/evidence.ts';
import { recordResponses } from '../support/evidence/responses.ts';
import { createSearch } from '../support/evidence/search.ts';
import { assertNoSecrets, searchRun } from '../support/evidence/search-run.ts';
import { createDatabase } from '../support/database.ts';
import { adminClient, createUser, stack } from '../support/stack.ts';
import { servers } from '../support/servers-in-use.ts';

let folder: string;
let evidence: Evidence;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'evidence-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function canary(): string {
  const value = `canary-${randomBytes(18).toString('base64url')}`;
  evidence.registerSecret('canary', value);
  return value;
}

describe('the search for secrets that ends each run', () => {
  beforeAll(async () => {
    evidence = createEvidence(folder);
    recordResponses(evidence);
    evidence.recordLog(`${JSON.stringify({ event: 'planted', note: canary() })}\n`);
    await plantInResponse(canary());
    await plantInDatabase(canary());
    await plantInUser(canary());
    await plantInVault(canary());
  });

  it('finds a secret that was planted in a log, a response, a table, a user and a vault record', async () => {
    const { hits, secrets } = await searchRun(folder, servers);
    expect(secrets).toBeGreaterThanOrEqual(5);
    expect(hits.map(({ place }) => place.replaceAll(/\d+\.txt|test_\w+/g, '*')).sort()).toEqual([
      'Keycloak realm ops-center, users',
      'Keycloak realm ops-center-vault, users',
      'database *, table public.audit_events',
      'logs-*',
      'responses-*',
    ]);
  });

  it('fails the run and names kind and location, not the secret', async () => {
    const printed: string[] = [];
    const error: unknown = await assertNoSecrets(folder, servers, (text) => printed.push(text)).catch(
      (reason: unknown) => reason,
    );
    const text = `${String(error)} ${printed.join()}`;
    expect(text).toContain('canary, as it is: logs-');
    expect(text).toContain('hits: 5');
    expect(text).not.toContain('canary-');
  });

  it('searches for the tokens that are encrypted in sessions', async () => {
    const ownFolder = mkdtempSync(path.join(tmpdir(), 'evidence-'));
    const ownEvidence = createEvidence(ownFolder);
    const [encryptionKey, refreshToken] = [fernetKey(), randomBytes(30).toString('hex')];
    ownEvidence.registerSecret('encryption key', encryptionKey);
    const { ownerUrl } = await createDatabase();
    ownEvidence.recordDatabase(new URL(ownerUrl).pathname.slice(1));
    const tokens = encryptSessionTokens(
      createKeyring([encryptionKey]),
      { userId: 'u', keycloakSessionId: 's' },
      { idToken: randomBytes(30).toString('hex'), refreshToken },
    );
    await run(ownerUrl, 'INSERT INTO sessions (sid, sess, expire) VALUES ($1, $2, now())', [
      'sid',
      JSON.stringify({ tokens }),
    ]);
    ownEvidence.recordLog(`{"token":"${refreshToken}"}\n`);
    const { hits } = await searchRun(ownFolder, servers);
    rmSync(ownFolder, { recursive: true });
    expect(hits).toMatchObject([{ kind: 'refresh token', form: 'as it is' }]);
  });

  it('fails a run that started an app and recorded nothing', async () => {
    const empty = mkdtempSync(path.join(tmpdir(), 'evidence-'));
    createEvidence(empty).registerSecret('session secret', randomBytes(24).toString('hex'));
    await expect(assertNoSecrets(empty, servers, () => undefined)).rejects.toThrow('had no data to search');
    rmSync(empty, { recursive: true });
  });
});

describe('the recording of a response', () => {
  let stop: () => Promise<void>;
  let own: string;
  const responses: string[] = [];
  beforeAll(() => {
    own = randomBytes(18).toString('hex');
    recordResponses({
      registerSecret: (kind, value) => void responses.push(`${kind}: ${value}`),
      recordLog: () => undefined,
      recordDatabase: () => undefined,
      recordResponse: (bytes) => void responses.push(bytes.toString()),
    });
  });
  afterEach(async () => {
    responses.length = 0;
    await stop();
  });

  async function ask(listener: RequestListener, headers: Record<string, string> = {}, address = '/') {
    const server = createServer(listener).listen(0, '127.0.0.1');
    await once(server, 'listening');
    stop = async () => {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    };
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}${address}`;
    await (await fetch(url, { headers, redirect: 'manual' })).text();
  }

  it('joins status, headers and body, however the body was written', async () => {
    await ask((_request, response) => {
      response.setHeader('x-request-id', `req_${randomId(20)}`);
      response.writeHead(202, { 'x-late': own });
      response.write(own.slice(0, 10));
      response.write(new Uint8Array(Buffer.from(own.slice(10, 20))));
      response.end(Buffer.from(own.slice(20)).toString('base64'), 'base64');
    });
    expect(responses).toHaveLength(1);
    expect(responses[0]).toMatch(/^GET \/\n202 Accepted\n/);
    expect(responses[0]).toContain(`x-late: ${own}\n`);
    expect(responses[0]).toContain(`\n\n${own}`);
  });

  it('omits only the session cookie and the ID token hint', async () => {
    await ask((_request, response) => {
      response.setHeader('x-request-id', `req_${randomId(20)}`);
      response.setHeader('set-cookie', `session=${own}`);
      response.setHeader('location', `https://kc.example/?a=left&id_token_hint=${own}&b=right`);
      response.writeHead(303).end();
    });
    expect(responses.join()).not.toContain(own);
    expect(responses.join()).toMatch(/\?a=left&id_token_hint=.*&b=right/);
  });

  it('ignores responses of other servers', async () => {
    await ask((_request, response) => response.end(own));
    expect(responses).toEqual([]);
  });

  it('registers the credentials of the request as secrets', async () => {
    await ask(
      (_request, response) => response.setHeader('x-request-id', `req_${randomId(20)}`).end(),
      { cookie: 'a=b; session=s%3Aone.two%2F', authorization: 'Bearer three', 'x-api-key': 'four' },
      '/auth/callback?state=x&code=five&iss=y',
    );
    expect(responses.slice(0, -1)).toEqual([
      'session cookie: s:one.two/',
      'session id: one',
      'credential of a request: three',
      'credential of a request: four',
      'authorization code: five',
    ]);
  });
});

describe('a search finds a secret', () => {
  const value = 'sk-"quoted"/and+more?of&it=';
  const bytes = Buffer.from(value);
  it.each([
    ['as it is', value],
    ['as it is', `${value} twice ${value}`],
    ['in JSON', JSON.stringify({ a: { b: value } })],
    ['percent-encoded', `?x=${encodeURIComponent(value)}&y=`],
    ['in base64', bytes.toString('base64')],
    ['in base64', Buffer.from(`a:${value}`).toString('base64')],
    ['in base64', Buffer.from(`ab${value}z`).toString('base64')],
    ['in hex', `\\x${bytes.toString('hex')}00`],
  ])('%s, case %#', (form, text) => {
    const search = createSearch([{ kind: 'provider key', value }]);
    search.text('a log', `before ${text} after`);
    expect(search.hits.map((hit) => hit.form)).toContain(form);
  });

  it('in base64url', () => {
    const secret = { kind: 'provider key', value: '???>>>???>>>???' } as const;
    const search = createSearch([secret]);
    search.text('a log', Buffer.from(secret.value).toString('base64url'));
    expect(search.hits.map((hit) => hit.form)).toEqual(['in base64url']);
  });

  it('at the start and the end of a text, and not when a character differs', () => {
    const search = createSearch([{ kind: 'provider key', value }]);
    search.text('start', `${value} after`);
    search.text('end', `before ${value}`);
    search.text('neither', `${value.slice(0, 5)}X${value.slice(6)} ${value.slice(0, -2)}`);
    expect(search.hits.map((hit) => hit.place)).toEqual(['start', 'end']);
  });

  it('across the chunks in which a file is read', async () => {
    const file = path.join(folder, 'large');
    for (const at of [4_194_304 - 13, 4_194_304, 2 * 4_194_304 - 1]) {
      const data = Buffer.alloc(9_000_000, 'x');
      data.write(value, at);
      writeFileSync(file, data);
      const search = createSearch([{ kind: 'provider key', value }]);
      await search.file('large', file);
      expect(search.hits).toEqual([{ kind: 'provider key', form: 'as it is', place: 'large', offset: at }]);
      expect(search.bytes).toBe(data.length);
    }
  });
});

async function plantInResponse(value: string): Promise<void> {
  const server = createServer((_request, response) => {
    response.setHeader('x-request-id', `req_${randomId(20)}`);
    response.write(value.slice(0, 9));
    response.end(value.slice(9));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  await (await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)).text();
  server.close();
  server.closeAllConnections();
  await once(server, 'close');
}

async function plantInDatabase(value: string): Promise<void> {
  const { ownerUrl } = await createDatabase();
  evidence.recordDatabase(new URL(ownerUrl).pathname.slice(1));
  await run(
    ownerUrl,
    `INSERT INTO audit_events (owner, actor, action, object, request_id) VALUES ('user:a', 'user:a', 'x', $1, 'r')`,
    [value],
  );
}

async function run(url: string, text: string, values: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(text, values);
  await client.end();
}

async function plantInUser(value: string): Promise<void> {
  const { id } = await createUser();
  const admin = await adminClient();
  await admin.users.update({ id }, { ...(await admin.users.findOne({ id })), lastName: value });
}

async function plantInVault(value: string): Promise<void> {
  const admin = await adminClient(stack.keycloak.vaultRealm);
  await admin.users.create({
    username: `planted-${randomBytes(6).toString('hex')}`,
    enabled: false,
    attributes: { byok_planted: [`{"token":"${value}"}`] },
  });
}
