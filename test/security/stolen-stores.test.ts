import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { fernetKey } from '../support/app.ts';
import { evidence } from '../support/evidence.ts';
import { openAiKey } from '../support/key.ts';
import type { TestUser } from '../support/stack.ts';
import { answer } from '../support/upstream.ts';
import { until } from '../support/until.ts';
import { LAYOUTS } from './installation.ts';
import {
  dumpDatabase,
  expectAllOf,
  expectNothingOf,
  expectNoUsableKey,
  exportRealm,
  fernetTokensIn,
  signedCookie,
} from './stolen-data.ts';
import { createScenario, listKeys, statusOf, type Scenario } from './scenario.ts';

const LABEL = 'a label of the owner';

/** What a user did before the theft. */
interface History {
  user: TestUser;
  session: string;
  /** All keys that were submitted, also those that were refused, replaced or deleted. */
  submitted: string[];
  /** The ids of the keys that are stored. */
  keyIds: string[];
  /** The encrypted keys that are stored. */
  tokens: string[];
  masks: string[];
}

async function useProduct(scenario: Scenario): Promise<History> {
  const { app, upstream } = scenario;
  const submitted: string[] = [];
  const newKey = () => {
    const key = openAiKey();
    submitted.push(key);
    return key;
  };
  const send = (method: string, path: string, json?: unknown, session = first.session) =>
    statusOf(
      app.call(`/api/v1/byok/keys${path}`, { method, session, ...(json === undefined ? {} : { json }) }),
    );

  const first = await scenario.createUserWithKey({ key: newKey(), label: LABEL });
  const { user, session } = first;
  const custom = await scenario.storeKey(first, {
    provider: 'custom',
    key: newKey(),
    endpoint: upstream.url,
    label: LABEL,
  });
  const gone = await scenario.storeKey(first, { key: newKey() });
  expect(await send('DELETE', `/openai?key_id=${gone.keyId}`)).toBe(200);
  const replaced = await scenario.storeKey(first, { key: newKey(), key_id: first.keyId });
  const key = submitted.at(-1) ?? '';

  // Refused because of the tier, the format and the test.
  const free = await scenario.createUser('free');
  const freeSession = await app.signIn(free);
  expect(await send('POST', '/add', { provider: 'openai', key: newKey() }, freeSession)).toBe(403);
  expect(await send('POST', '/add', { provider: 'openai', key: `${newKey()} ` })).toBe(400);
  const refused = newKey();
  upstream.answerKey(refused, answer.error(401, { message: `Incorrect API key provided: ${refused}` }));
  expect(await send('POST', '/add', { provider: 'openai', key: refused, validate: true })).toBe(422);

  // Keys in the place of an id or a provider.
  const misplaced = newKey();
  expect(await send('DELETE', `/openai?key_id=${misplaced}`)).toBe(404);
  expect(await send('POST', '/add', { provider: misplaced, key: 'x' })).toBe(404);
  expect(await send('POST', '/add', { provider: 'openai', key: newKey(), key_id: misplaced })).toBe(404);

  // Successful and failing tests and chats. The upstream repeats the key in an error.
  expect(await send('POST', '/test/openai')).toBe(200);
  expect(await send('POST', '/test/custom')).toBe(200);
  expect(await statusOf(scenario.chat(session, 'openai/gpt-4o'))).toBe(200);
  expect(await statusOf(scenario.chat(session, 'custom/gpt-4o'))).toBe(200);
  upstream.refuseConnections(1);
  await statusOf(scenario.chat(session, 'openai/gpt-4o'));
  upstream.answerKey(key, answer.error(401, { message: `Incorrect API key provided: ${key}` }));
  expect(await statusOf(scenario.chat(session, 'openai/gpt-4o'))).toBe(401);

  const keys = await listKeys(app, session);
  return {
    user,
    session,
    submitted,
    keyIds: keys.map(({ id }) => id),
    tokens: [replaced, custom].map(({ value }) => (JSON.parse(value) as { token: string }).token),
    masks: keys.map((each) => String(each['key_preview'])),
  };
}

describe.each(LAYOUTS)('stolen data with %s', (layout) => {
  let scenario: Scenario;
  let history: History;
  beforeAll(async () => {
    scenario = await createScenario(layout);
    history = await useProduct(scenario);
  }, 120_000);
  afterAll(() => scenario.stop());

  const personal = () => [
    history.user.username,
    history.user.email,
    LABEL,
    scenario.upstream.url,
    ...history.masks,
  ];
  const cookieWith = (session: string) => statusOf(scenario.app.call('/api/v1/me', { session }));

  describe('a dump of Postgres', () => {
    let stolen: string;
    let sessionId: string;
    beforeAll(async () => {
      stolen = await dumpDatabase(scenario.app.ownerDatabaseUrl);
      const row = stolen.split('\n').find((line) => line.includes('"sid"') && line.includes(history.user.id));
      ({ sid: sessionId } = JSON.parse(row ?? '{}') as { sid: string });
      evidence.registerSecret('session id', sessionId);
    });

    it('contains no key, neither usable nor encrypted', () => {
      expectNoUsableKey(stolen, history.submitted);
      expectNothingOf(stolen, history.tokens);
      const keyring = createKeyring(scenario.app.config.encryptionKeys);
      const kinds = fernetTokensIn(stolen).map((token) => {
        const decrypted = JSON.parse(keyring.decrypt(token) ?? '{}') as { kind?: string };
        return decrypted.kind;
      });
      expect(new Set(kinds)).toEqual(new Set(['session_tokens', 'encryption_canary']));
    });

    it('shows by ids who has keys of which provider, when they were used and tested, and what was done', () => {
      expectAllOf(stolen, [history.user.id, ...history.keyIds, 'key:openai/', 'key:custom/']);
      expectAllOf(stolen, [
        'key.added',
        'key.replaced',
        'key.deleted',
        'key.tested',
        'session.started',
        'tier.refused',
      ]);
      expectAllOf(stolen, ['"last_used_at": "20', '"last_tested_at": "20', '"test_status": "invalid"']);
    });

    it('contains no name, e-mail address, label, endpoint or last characters of a key', () => {
      expectNothingOf(stolen, personal());
    });

    it('contains only ids and names of routes in the audit trail', () => {
      const rows = stolen
        .split('\n')
        .filter((line) => line.includes('"action"'))
        .map((line) => JSON.parse(line) as Record<string, string>);
      expect(rows.length).toBeGreaterThanOrEqual(8);
      for (const row of rows) {
        expect(Object.keys(row).sort()).toEqual(
          ['id', 'owner', 'actor', 'action', 'object', 'request_id', 'time', 'count'].sort(),
        );
        expect(row).toMatchObject({
          owner: expect.stringMatching(/^user:[0-9a-f-]{36}$/),
          actor: row['owner'],
          action: expect.stringMatching(/^[a-z_.]+$/),
          object: expect.stringMatching(/^(session|key:[a-z]+\/[0-9A-Za-z]{12}|route:[A-Z]+ \/[\w/:]+)$/),
          request_id: expect.stringMatching(/^req_\w+$/),
        });
      }
    });

    it('does not let the app’s role change the audit trail or read that of others', async () => {
      const client = new pg.Client({ connectionString: scenario.app.databaseUrl });
      await client.connect();
      try {
        expect((await client.query('SELECT FROM audit_events')).rowCount).toBe(0);
        for (const change of ['DELETE FROM', 'TRUNCATE', 'UPDATE'])
          await expect(
            client.query(`${change} audit_events${change === 'UPDATE' ? " SET action = 'x'" : ''}`),
          ).rejects.toThrow('permission denied');
      } finally {
        await client.end();
      }
    });

    it('contains the ids of sessions, which are useless without SESSION_SECRET', async () => {
      expect(await cookieWith(sessionId)).toBe(401);
      expect(await cookieWith(encodeURIComponent(`s:${sessionId}`))).toBe(401);
      const guessed = randomBytes(32).toString('base64url');
      expect(await cookieWith(signedCookie(sessionId, guessed))).toBe(401);
      // Both together are a valid session. That is why they are stored separately.
      expect(await cookieWith(signedCookie(sessionId, scenario.app.config.sessionSecret))).toBe(200);
    });
  });

  describe('an export of the realms', () => {
    let stolen: string;
    beforeAll(async () => {
      const realms = [...new Set([scenario.realm, scenario.vaultRealm])];
      stolen = (await Promise.all(realms.map(exportRealm))).join('\n');
    });

    it('contains no usable key: the encrypted keys need ENCRYPTION_KEY', () => {
      expectNoUsableKey(stolen, history.submitted);
      const [own, others] = [createKeyring(scenario.app.config.encryptionKeys), createKeyring([fernetKey()])];
      for (const token of history.tokens) {
        expect(fernetTokensIn(stolen).includes(token)).toBe(true);
        expect(others.decrypt(token)).toBeUndefined();
        // Both together give the keys. That is why ENCRYPTION_KEY is never stored in Keycloak.
        const decrypted = JSON.parse(own.decrypt(token) ?? '{}') as { key: string };
        expect(history.submitted).toContain(decrypted.key);
      }
    });

    it('shows all users with their tiers, and label, endpoint and last characters of every key', () => {
      expectAllOf(stolen, [...personal(), '"subscription_tier":["starter"]']);
    });

    it('contains the secrets of the clients', () => {
      const clients = [scenario.app.config.keycloak.web, scenario.service, scenario.vault];
      expectAllOf(
        stolen,
        clients.map(({ secret }) => secret),
      );
    });

    it('contains neither ENCRYPTION_KEY nor SESSION_SECRET', () => {
      expectNothingOf(stolen, [...scenario.app.config.encryptionKeys, scenario.app.config.sessionSecret]);
    });
  });

  describe('all logs at level trace', () => {
    let stolen: string;
    beforeAll(() => {
      stolen = scenario.app.logs();
    });

    it('contain no key in any encoding, also where an upstream repeated it, and no encrypted key', () => {
      expectNoUsableKey(stolen, history.submitted);
      expect(fernetTokensIn(stolen)).toEqual([]);
    });

    it('contain no key that was sent in a URL', async () => {
      const { app } = scenario;
      // Not registered as a secret of the test run, since its evidence records the URLs of requests.
      const misplaced = `sk-${randomBytes(24).toString('hex')}`;
      for (const path of ['/api/v1/byok/keys/test/', '/api/v1/byok/keys/openai/', '/']) {
        const response = await app.call(path + misplaced, { method: 'POST', session: history.session });
        expect([404, 405]).toContain(response.status);
        const id = response.headers.get('x-request-id');
        await until(() => app.events('request').find((line) => line['request_id'] === id));
      }
      expectNoUsableKey(app.logs(), [misplaced]);
    });

    it('contain no session, token, password or client secret', () => {
      const { keycloak, sessionSecret, encryptionKeys, systemDefault } = scenario.app.config;
      const clients = [keycloak.web, keycloak.service, keycloak.vault].map(({ secret }) => secret);
      const cookie = decodeURIComponent(history.session);
      const sessionId = cookie.slice(2, cookie.lastIndexOf('.'));
      const own = [history.session, cookie, sessionId, history.user.password, systemDefault.apiKey ?? ''];
      expectNothingOf(stolen, [...own, ...clients, ...encryptionKeys, sessionSecret]);
      expect(/eyJ[\w-]+\.eyJ/.test(stolen)).toBe(false);
    });

    it('show by ids who used which provider, model and key and when, and no names, labels or endpoints', () => {
      expectAllOf(stolen, [history.user.id, ...history.keyIds, '"provider":"openai"', 'gpt-4o']);
      expectNothingOf(stolen, personal());
    });
  });

  describe('SESSION_SECRET without the database', () => {
    it('does not give a session, since its row is in Postgres', async () => {
      const invented = randomBytes(24).toString('base64url');
      expect(await cookieWith(signedCookie(invented, scenario.app.config.sessionSecret))).toBe(401);
    });
  });
});
