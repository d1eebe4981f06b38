import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createUserConnections } from '../../src/identity/user-connections.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { createResponse, createSocket } from '../support/client-connection.ts';
import { apiTokens, createApiClient } from '../support/keycloak-tokens.ts';
import { adminClient, createUser, type TestUser } from '../support/stack.ts';
import { until } from '../support/until.ts';

let app: TestApp;
let apiClient: string;
const sockets: Socket[] = [];

beforeAll(async () => {
  apiClient = await createApiClient();
  app = await startApp({ env: { API_CLIENT_IDS: apiClient } });
});
afterAll(() => app.stop());
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** A kept-alive connection. */
interface Connection {
  closed: Promise<unknown>;
  /** Requests the user's account on it. @returns the status. */
  request(credential: string): Promise<number>;
}

async function openConnection(): Promise<Connection> {
  const { hostname, port } = new URL(app.url);
  const socket = connect(Number(port), hostname);
  sockets.push(socket);
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return {
    closed: once(socket, 'close'),
    async request(credential) {
      text = '';
      socket.write(`GET /api/v1/me HTTP/1.1\r\nHost: localhost:${port}\r\n${credential}\r\n\r\n`);
      await until(
        () => text,
        (all) => /\r\n\r\n.*"(id|code)"/s.test(all),
      );
      return Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1]);
    },
  };
}

const bySession = async (user: TestUser) => `Cookie: session=${await app.signIn(user)}`;
const byToken = async (user: TestUser) =>
  `Authorization: Bearer ${(await apiTokens(apiClient, user)).access_token}`;

async function disable({ id }: TestUser): Promise<void> {
  await (await adminClient()).users.update({ id }, { enabled: false });
}

describe('the idle connections of a user who is disabled', () => {
  it.each([
    ['with a session', bySession],
    ['with a bearer token only', byToken],
  ])('are closed within 10 s, %s, and those of others stay open', async (_name, createCredential) => {
    const [user, other] = [await createUser(), await createUser()];
    const [credential, otherCredential] = [await createCredential(user), await createCredential(other)];
    const own = await Promise.all([openConnection(), openConnection()]);
    const others = await openConnection();
    for (const connection of own) expect(await connection.request(credential)).toBe(200);
    expect(await others.request(otherCredential)).toBe(200);
    // A proxy has used this one for both: the last request counts.
    const shared = await openConnection();
    expect([await shared.request(credential), await shared.request(otherCredential)]).toEqual([200, 200]);

    const disabledAtMs = performance.now();
    await disable(user);
    for (const { closed } of own) await closed;
    expect(performance.now() - disabledAtMs).toBeLessThan(10_000);
    expect([await others.request(otherCredential), await shared.request(otherCredential)]).toEqual([
      200, 200,
    ]);
  });
});

describe('the connections of a user', () => {
  it('are closed after their response, and not while another user has the connection', () => {
    const connections = createUserConnections();
    const [idle, busy, shared] = [createSocket(), createSocket(), createSocket()];
    const [first, open, ofOther] = [createResponse(idle), createResponse(busy), createResponse(shared)];
    connections.track('a', first);
    first.emit('close');
    // A request is authorized again after its body was read.
    for (let count = 0; count < 2; count += 1) connections.track('a', open);
    for (const user of ['a', 'b']) connections.track(user, ofOther);
    connections.close('a');
    const closed = () => [idle, busy, shared].map((socket) => socket.destroySoon.mock.calls.length);
    expect(closed()).toEqual([1, 0, 0]);
    open.emit('close');
    ofOther.emit('close');
    expect(closed()).toEqual([1, 1, 0]);
  });

  it('are forgotten when they are closed', () => {
    const connections = createUserConnections();
    const socket = createSocket();
    connections.track('a', createResponse(socket));
    expect(connections.userIds()).toEqual(['a']);
    socket.emit('close');
    expect(connections.userIds()).toEqual([]);
  });
});
