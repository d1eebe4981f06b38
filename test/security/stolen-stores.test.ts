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

/** What somebody has done with the product before the theft. */
interface History {
  user: TestUser;
  session: string;
  /** All keys that were submitted, also those that were refused, replaced or deleted. */
  submitted: string[];
  /** The ids of the keys that are stored. */
  keyIds: string[];
  /** The sealed keys that are stored. */
  tokens: string[];
  masks: string[];
}

async function useProduct(scene: Scenario): Promise<History> {
  const { app, upstream } = scene;
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

  const first = await scene.createUserWithKey({ key: newKey(), label: LABEL });
  const { user, session } = first;
  const custom = await scene.storeKey(first, {
    provider: 'custom',
    key: newKey(),
    endpoint: upstream.url,
    label: LABEL,
  });
  const gone = await scene.storeKey(first, { key: newKey() });
  expect(await send('DELETE', `/openai?key_id=${gone.keyId}`)).toBe(200);
  const replaced = await scene.storeKey(first, { key: newKey(), key_id: first.keyId });
  const key = submitted.at(-1) ?? '';

  // Adds that are refused: the tier, the form, the test.
  const free = await scene.createUser('free');
  const freeSession = await app.signIn(free);
  expect(await send('POST', '/add', { provider: 'openai', key: newKey() }, freeSession)).toBe(403);
  expect(await send('POST', '/add', { provider: 'openai', key: `${newKey()} ` })).toBe(400);
  const refused = newKey();
  upstream.answerKey(refused, answer.error(401, { message: `Incorrect API key provided: ${refused}` }));
  expect(await send('POST', '/add', { provider: 'openai', key: refused, validate: true })).toBe(422);

  // Keys where something else belongs.
  const misplaced = newKey();
  expect(await send('DELETE', `/openai?key_id=${misplaced}`)).toBe(404);
  expect(await send('POST', '/add', { provider: misplaced, key: 'x' })).toBe(404);
  expect(await send('POST', '/add', { provider: 'openai', key: newKey(), key_id: misplaced })).toBe(404);

  // Tests and chats, good and bad, with an upstream that repeats the key in its error.
  expect(await send('POST', '/test/openai')).toBe(200);
  expect(await send('POST', '/test/custom')).toBe(200);
  expect(await statusOf(scene.chat(session, 'openai/gpt-4o'))).toBe(200);
  expect(await statusOf(scene.chat(session, 'custom/gpt-4o'))).toBe(200);
  upstream.refuseConnections(1);
  await statusOf(scene.chat(session, 'openai/gpt-4o'));
  upstream.answerKey(key, answer.error(401, { message: `Incorrect API key provided: ${key}` }));
  expect(await statusOf(scene.chat(session, 'openai/gpt-4o'))).toBe(401);

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

describe.each(LAYOUTS)('with %s, a thief', (layout) => {
  let scene: Scenario;
  let past: History;
  beforeAll(async () => {
    scene = await createScenario(layout);
    past = await useProduct(scene);
  }, 120_000);
  afterAll(() => scene.stop());

  const personal = () => [past.user.username, past.user.email, LABEL, scene.upstream.url, ...past.masks];
  const cookieWith = (session: string) => statusOf(scene.app.call('/api/v1/me', { session }));

  describe('of a dump of Postgres', () => {
    let loot: string;
    let sessionId: string;
    beforeAll(async () => {
      loot = await dumpDatabase(scene.app.ownerDatabaseUrl);
      const row = loot.split('\n').find((line) => line.includes('"sid"') && line.includes(past.user.id));
      ({ sid: sessionId } = JSON.parse(row ?? '{}') as { sid: string });
      evidence.registerSecret('session id', sessionId);
    });

    it('gets no usable key, and no sealed one either', () => {
      expectNoUsableKey(loot, past.submitted);
      expectNothingOf(loot, past.tokens);
      const keyring = createKeyring(scene.app.config.encryptionKeys);
      const kinds = fernetTokensIn(loot).map((token) => {
        const opened = JSON.parse(keyring.decrypt(token) ?? '{}') as { kind?: string };
        return opened.kind;
      });
      expect(new Set(kinds)).toEqual(new Set(['session_tokens', 'encryption_canary']));
    });

    it('learns who has keys of which provider, when they were used and tested and what was done, by ids', () => {
      expectAllOf(loot, [past.user.id, ...past.keyIds, 'key:openai/', 'key:custom/']);
      expectAllOf(loot, [
        'key.added',
        'key.replaced',
        'key.deleted',
        'key.tested',
        'session.started',
        'tier.refused',
      ]);
      expectAllOf(loot, ['"last_used_at": "20', '"last_tested_at": "20', '"test_status": "invalid"']);
    });

    it('learns no name, e-mail address, label, endpoint or last characters of a key', () => {
      expectNothingOf(loot, personal());
    });

    it('finds in the audit trail ids and the names of routes, and nothing else', () => {
      const rows = loot
        .split('\n')
        .filter((line) => line.includes('"action"'))
        .map((line) => JSON.parse(line) as Record<string, string>);
      expect(rows.length).toBeGreaterThanOrEqual(8);
      for (const row of rows) {
        expect(Object.keys(row).sort()).toEqual(
          ['id', 'owner', 'actor', 'action', 'object', 'request_id', 'time'].sort(),
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

    it('cannot change the audit trail as the app’s own role, nor read that of others', async () => {
      const client = new pg.Client({ connectionString: scene.app.databaseUrl });
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

    it('has the ids of sessions, which open nothing without SESSION_SECRET', async () => {
      expect(await cookieWith(sessionId)).toBe(401);
      expect(await cookieWith(encodeURIComponent(`s:${sessionId}`))).toBe(401);
      const guessed = randomBytes(32).toString('base64url');
      expect(await cookieWith(signedCookie(sessionId, guessed))).toBe(401);
      // Both together are somebody's session: why the two are kept apart.
      expect(await cookieWith(signedCookie(sessionId, scene.app.config.sessionSecret))).toBe(200);
    });
  });

  describe('of an export of the realms', () => {
    let loot: string;
    beforeAll(async () => {
      const realms = [...new Set([scene.realm, scene.vaultRealm])];
      loot = (await Promise.all(realms.map(exportRealm))).join('\n');
    });

    it('gets no usable key: the sealed ones open under ENCRYPTION_KEY alone', () => {
      expectNoUsableKey(loot, past.submitted);
      const [own, others] = [createKeyring(scene.app.config.encryptionKeys), createKeyring([fernetKey()])];
      for (const token of past.tokens) {
        expect(fernetTokensIn(loot).includes(token)).toBe(true);
        expect(others.decrypt(token)).toBeUndefined();
        // The two together are the keys: why ENCRYPTION_KEY never goes into Keycloak.
        const opened = JSON.parse(own.decrypt(token) ?? '{}') as { key: string };
        expect(past.submitted).toContain(opened.key);
      }
    });

    it('learns who everybody is, their tiers, and of every key the label, endpoint and last characters', () => {
      expectAllOf(loot, [...personal(), '"subscription_tier":["starter"]']);
    });

    it('has the secrets of the clients, and with them what each of those is good for', () => {
      const clients = [scene.app.config.keycloak.web, scene.service, scene.vault];
      expectAllOf(
        loot,
        clients.map(({ secret }) => secret),
      );
    });

    it('does not have ENCRYPTION_KEY or SESSION_SECRET', () => {
      expectNothingOf(loot, [...scene.app.config.encryptionKeys, scene.app.config.sessionSecret]);
    });
  });

  describe('of all logs, at the level trace', () => {
    let loot: string;
    beforeAll(() => {
      loot = scene.app.logs();
    });

    it('gets no key, in whatever spelling and also where an upstream repeated it, and no sealed one', () => {
      expectNoUsableKey(loot, past.submitted);
      expect(fernetTokensIn(loot)).toEqual([]);
    });

    it('gets no key either that somebody put into an address', async () => {
      const { app } = scene;
      // Not registered with the run's own evidence, which notes the addresses of requests.
      const misplaced = `sk-${randomBytes(24).toString('hex')}`;
      for (const path of ['/api/v1/byok/keys/test/', '/api/v1/byok/keys/openai/', '/']) {
        const response = await app.call(path + misplaced, { method: 'POST', session: past.session });
        expect([404, 405]).toContain(response.status);
        const id = response.headers.get('x-request-id');
        await until(() => app.events('request').find((line) => line['request_id'] === id));
      }
      expectNoUsableKey(app.logs(), [misplaced]);
    });

    it('gets no session, token, password or secret of a client', () => {
      const { keycloak, sessionSecret, encryptionKeys, systemDefault } = scene.app.config;
      const clients = [keycloak.web, keycloak.service, keycloak.vault].map(({ secret }) => secret);
      const cookie = decodeURIComponent(past.session);
      const sessionId = cookie.slice(2, cookie.lastIndexOf('.'));
      const own = [past.session, cookie, sessionId, past.user.password, systemDefault.apiKey ?? ''];
      expectNothingOf(loot, [...own, ...clients, ...encryptionKeys, sessionSecret]);
      expect(/eyJ[\w-]+\.eyJ/.test(loot)).toBe(false);
    });

    it('learns who used which provider, model and key when, by ids, and no names, labels or endpoints', () => {
      expectAllOf(loot, [past.user.id, ...past.keyIds, '"provider":"openai"', 'gpt-4o']);
      expectNothingOf(loot, personal());
    });
  });

  describe('of SESSION_SECRET alone', () => {
    it('makes no session: its row is in Postgres', async () => {
      const invented = randomBytes(24).toString('base64url');
      expect(await cookieWith(signedCookie(invented, scene.app.config.sessionSecret))).toBe(401);
    });
  });
});
