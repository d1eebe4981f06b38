import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Principal } from '../../src/http/principal.ts';
import { createUserCache } from '../../src/identity/user-cache.ts';
import { createActiveWork } from '../../src/identity/active-work.ts';
import { createLogout } from '../../src/identity/logout.ts';
import { createLocalExecution } from '../../src/identity/local-execution.ts';
import { createUserConnections } from '../../src/identity/user-connections.ts';
import { createSessionStore } from '../../src/identity/session-store.ts';
import { createActiveWorkCheck } from '../../src/identity/active-work-check.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createKeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';
import { createLog } from '../../src/lib/log.ts';
import { createResponse, createSocket } from '../support/client-connection.ts';
import { createDatabase } from '../support/database.ts';
import { makeOperator } from '../support/operator.ts';
import { adminClient, createUser, stack } from '../support/stack.ts';

/** No token is valid. */
const personalTokens = { listValidIds: () => Promise.resolve(new Set<string>()) };

let database: Database;
beforeAll(async () => {
  const { appUrl } = await createDatabase();
  database = openDatabase({ url: appUrl, max: 2, applicationName: 'test', log: createLog('silent') });
});
afterAll(async () => {
  await database.close();
});

/** Runs the check without polling events. The test controls the clock of the user cache. */
function setUp() {
  const clock = { ms: 1_000_000 };
  const { serviceClient, realm, url } = stack.keycloak;
  const keycloakAdmin = createKeycloakAdmin({
    baseUrl: url,
    realm,
    clientId: serviceClient.id,
    clientSecret: serviceClient.secret,
  });
  const userCache = createUserCache({ keycloakAdmin, now: () => clock.ms });
  const [activeWork, store] = [createActiveWork(), createSessionStore(database)];
  const connected = new Set<string>();
  const serverConnections = {
    userIds: () => [...connected],
    close: (id: string) => void connected.delete(id),
  };
  const connections = createUserConnections();
  const logout = createLogout({ store, activeWork, connections, serverConnections });
  const ended: string[] = [];
  const begin = (name: string, principal: Principal, needsOperatorRole = false) =>
    activeWork.register(principal, () => void ended.push(name), { operatorRole: needsOperatorRole });
  const localExecution = createLocalExecution({ isOn: true, keycloakAdmin });
  return {
    clock,
    store,
    localExecution,
    begin,
    ended,
    connected,
    connections,
    checkActiveWork: createActiveWorkCheck({
      activeWork,
      connections,
      store,
      personalTokens,
      userCache,
      localExecution,
      logout,
      serverConnections,
    }),
  };
}

function bearerOf(id: string, overrides: Partial<Principal> = {}): Principal {
  return {
    user: { id, username: id, email: null, name: null, tier: 'free' },
    credential: 'bearer',
    scopes: new Set(['chat']),
    token: null,
    sessionId: null,
    keycloakSessionId: `sid of ${id}`,
    signedInAtMs: 1_000_000,
    ...overrides,
  };
}

describe('the check of active work', () => {
  it('ends the work of a user that was disabled without an event, at the second check after 5 s', async () => {
    const { clock, begin, ended, checkActiveWork } = setUp();
    const [enabled, disabled] = [await createUser(), await createUser()];
    begin('enabled', bearerOf(enabled.id));
    begin('disabled', bearerOf(disabled.id));
    await checkActiveWork();
    expect(ended).toEqual([]);
    await (await adminClient()).users.update({ id: disabled.id }, { enabled: false });
    clock.ms += 5_000;
    await checkActiveWork();
    expect(ended).toEqual(['disabled']);
  });

  it('ends the local runs of a user at the first check after a composite role no longer gives the operator’s role', async () => {
    const { begin, ended, checkActiveWork } = setUp();
    const [former, operator] = [await createUser(), await createUser()];
    const takeAway = await makeOperator(former.id);
    await makeOperator(operator.id);
    for (const [name, { id }] of Object.entries({ former, operator })) {
      begin(`run of the ${name}`, bearerOf(id), true);
      begin(`stream of the ${name}`, bearerOf(id));
    }
    await checkActiveWork();
    expect(ended).toEqual([]);
    await takeAway();
    await checkActiveWork();
    expect(ended).toEqual(['run of the former']);
  });

  it('ends all requests of a bearer token that was signed out, with one query for all of them', async () => {
    const { store, begin, ended, checkActiveWork } = setUp();
    const [signedOut, other] = [await createUser(), await createUser()];
    for (let count = 1; count <= 3; count += 1) begin(`request ${count}`, bearerOf(signedOut.id));
    begin('request of another user', bearerOf(other.id));
    await store.markKeycloakSessions([`sid of ${signedOut.id}`], Infinity);
    const isLoggedOut = store.isLoggedOut.bind(store);
    let queries = 0;
    store.isLoggedOut = (signIn) => {
      queries += 1;
      return isLoggedOut(signIn);
    };
    await checkActiveWork();
    expect(ended).toEqual(['request 1', 'request 2', 'request 3']);
    expect(queries).toBe(2);
  });

  it('looks up users also if the sessions cannot be read', async () => {
    const { clock, store, begin, ended, checkActiveWork } = setUp();
    const disabled = await createUser({ enabled: false });
    store.listValidSessionIds = () => Promise.reject(new Error('no sessions'));
    begin('work of a session', bearerOf(disabled.id, { credential: 'session', sessionId: 'of nobody' }));
    clock.ms += 5_000;
    await expect(checkActiveWork()).rejects.toThrow('no sessions');
    expect(ended).toEqual(['work of a session']);
  });

  it('ends the local runs of former operators also if the role of another user cannot be read', async () => {
    const { begin, ended, localExecution, checkActiveWork } = setUp();
    const [unread, former] = [await createUser(), await createUser()];
    const { isAllowed } = localExecution;
    localExecution.isAllowed = (id) =>
      id === unread.id ? Promise.reject(new Error('not readable')) : isAllowed(id);
    begin('run of a user whose role is not readable', bearerOf(unread.id), true);
    begin('run of the former operator', bearerOf(former.id), true);
    await expect(checkActiveWork()).rejects.toThrow('not readable');
    expect(ended).toEqual(['run of the former operator']);
  });

  it('closes the idle connections of a user that was disabled without an event, at the second check after 5 s', async () => {
    const { clock, connections, checkActiveWork } = setUp();
    const [enabled, disabled] = [await createUser(), await createUser()];
    const sockets = [enabled, disabled].map(({ id }) => {
      const socket = createSocket();
      const response = createResponse(socket);
      connections.track(id, response);
      response.emit('close');
      return socket;
    });
    const closed = () => sockets.map((socket) => socket.destroySoon.mock.calls.length);
    await checkActiveWork();
    expect(closed()).toEqual([0, 0]);
    await (await adminClient()).users.update({ id: disabled.id }, { enabled: false });
    clock.ms += 5_000;
    await checkActiveWork();
    expect(closed()).toEqual([0, 1]);
  });

  it('looks up at most 300 users with connections at a time, in turn, and always those with active work', async () => {
    const [activeWork, store] = [createActiveWork(), createSessionStore(database)];
    let connected = Array.from({ length: 700 }, (_, index) => `user-${index}`);
    const lookups: string[] = [];
    const checkActiveWork = createActiveWorkCheck({
      activeWork,
      connections: { userIds: () => connected },
      store,
      personalTokens,
      userCache: {
        findUser(id) {
          lookups.push(id);
          return Promise.resolve(bearerOf(id).user);
        },
        invalidate: () => undefined,
      },
      serverConnections: createUserConnections(),
      localExecution: { isAllowed: () => Promise.resolve(false) },
      logout: createLogout({
        store,
        activeWork,
        connections: createUserConnections(),
        serverConnections: createUserConnections(),
      }),
    });
    activeWork.register(bearerOf('user-699'), () => undefined);
    const check = async () => {
      lookups.length = 0;
      await checkActiveWork();
      expect(lookups[0]).toBe('user-699');
      expect(new Set(lookups).size).toBe(lookups.length);
      return lookups.slice(1);
    };
    const rounds = [await check(), await check()];
    expect(rounds.map((ids) => ids.length)).toEqual([300, 300]);
    // A user who connects meanwhile waits behind nobody who was looked up.
    connected = ['new', ...connected];
    const third = await check();
    expect(third).toHaveLength(300);
    expect(new Set([...rounds.flat(), ...third]).size).toBe(700);
    expect(third).toContain('new');
    expect((await check()).slice(0, 100)).toEqual(rounds[0]?.slice(200));
  });

  it('closes the connections to servers of a user that was disabled, although no work is active', async () => {
    const { clock, connected, checkActiveWork } = setUp();
    const [enabled, disabled] = [await createUser(), await createUser()];
    for (const { id } of [enabled, disabled]) connected.add(id);
    await checkActiveWork();
    expect(connected.size).toBe(2);
    await (await adminClient()).users.update({ id: disabled.id }, { enabled: false });
    clock.ms += 5_000;
    await checkActiveWork();
    expect([...connected]).toEqual([enabled.id]);
  });

  it('ends the work of a bearer token whose session was logged out in another instance, and no other work of its user', async () => {
    const { store, begin, ended, checkActiveWork } = setUp();
    const user = await createUser();
    begin('out', bearerOf(user.id, { keycloakSessionId: 'out' }));
    begin('in', bearerOf(user.id, { keycloakSessionId: 'in' }));
    await store.markKeycloakSessions(['out'], Infinity);
    await checkActiveWork();
    expect(ended).toEqual(['out']);
  });

  it('ends the work of a session that was deleted or has expired', async () => {
    const { begin, ended, checkActiveWork } = setUp();
    const user = await createUser();
    const insert = (sid: string, expire: string) =>
      database.run(`INSERT INTO sessions (sid, sess, expire) VALUES ($1, '{}', now() + $2::interval)`, [
        sid,
        expire,
      ]);
    await insert('valid', '1 hour');
    await insert('expired', '-1 second');
    for (const sessionId of ['valid', 'expired', 'deleted'])
      begin(sessionId, bearerOf(user.id, { credential: 'session', sessionId }));
    await checkActiveWork();
    expect(ended.sort()).toEqual(['deleted', 'expired']);
  });

  it('ends nothing while Keycloak is unavailable', async () => {
    const clock = { ms: 0 };
    const liveWork = createActiveWork();
    const ended: string[] = [];
    const store = createSessionStore(database);
    const keycloakAdmin = createKeycloakAdmin({
      baseUrl: 'http://127.0.0.1:1',
      realm: 'ops-center',
      clientId: 'a',
      clientSecret: 'b',
    });
    const directory = createUserCache({ keycloakAdmin, now: () => clock.ms });
    liveWork.register(bearerOf('some-user'), () => void ended.push('ended'));
    const connections = createUserConnections();
    const checkActiveWork = createActiveWorkCheck({
      activeWork: liveWork,
      connections,
      store,
      personalTokens,
      userCache: directory,
      localExecution: { isAllowed: () => Promise.resolve(false) },
      serverConnections: connections,
      logout: createLogout({ store, activeWork: liveWork, connections, serverConnections: connections }),
    });
    await expect(checkActiveWork()).rejects.toMatchObject({ code: 'keycloak_unavailable' });
    expect(ended).toEqual([]);
  });
});
