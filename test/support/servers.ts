import { randomBytes } from 'node:crypto';
import type { HostKey } from '../../src/lib/ssh/host-key.ts';
import type { CreateServer, ServerDeleted, ServerTestView, ServerView } from '../../src/servers/schema.ts';
import type { CallOptions, TestApp } from './app.ts';
import { evidence } from './evidence.ts';
import { createUser, type TestUser } from './stack.ts';
import type { Tier } from '../../src/config/tiers.ts';

export const SERVERS = '/api/v1/execution-servers';

/** The body of an error response. */
export interface Problem {
  status: number;
  code: string;
  detail: string;
  errors?: { path: string; message: string }[];
  [extra: string]: unknown;
}

/** Calls the servers API as one user. Each method returns the parsed body and throws for an unexpected status. */
export interface ServerClient {
  user: TestUser;
  session: string;
  list(): Promise<ServerView[]>;
  get(id: string): Promise<ServerView>;
  add(overrides: Partial<CreateServer> & { connection_config: Record<string, unknown> }): Promise<ServerView>;
  change(id: string, change: object): Promise<ServerView>;
  remove(id: string): Promise<ServerDeleted>;
  test(id: string): Promise<ServerTestView>;
  confirm(id: string, key: HostKey & { hop?: string }): Promise<ServerView>;
  /** Expects an error response. */
  expectRefusal(
    method: string,
    path: string,
    json?: object,
    headers?: Record<string, string>,
  ): Promise<Problem>;
  /** Returns the response with any status. */
  send(method: string, path: string, json?: object, options?: CallOptions): ReturnType<TestApp['call']>;
}

/** A client of a new user who is signed in. */
export async function createServerClient(app: TestApp, tier: Tier = 'starter'): Promise<ServerClient> {
  const user = await createUser({ tier });
  return createServerClientFor(app, user, await app.signIn(user));
}

export function createServerClientFor(app: TestApp, user: TestUser, session: string): ServerClient {
  const send: ServerClient['send'] = (method, path, json, options = {}) =>
    app.call(`${SERVERS}${path}`, { method, session, ...(json === undefined ? {} : { json }), ...options });
  async function expectJson<T>(method: string, path: string, status: number, json?: object): Promise<T> {
    const response = await send(method, path, json);
    const text = await response.text();
    if (response.status !== status)
      throw new Error(`${method} ${path} responded ${response.status}: ${text}`);
    return JSON.parse(text) as T;
  }
  return {
    user,
    session,
    send,
    list: () => expectJson('GET', '', 200),
    get: (id) => expectJson('GET', `/${id}`, 200),
    add: (overrides) => expectJson('POST', '', 201, { name: 'A server', server_type: 'ssh', ...overrides }),
    change: (id, change) => expectJson('PUT', `/${id}`, 200, change),
    remove: (id) => expectJson('DELETE', `/${id}`, 200),
    test: (id) => expectJson('POST', `/${id}/test`, 200),
    confirm: (id, key) => expectJson('POST', `/${id}/host-key`, 200, key),
    async expectRefusal(method, path, json, headers = {}) {
      const response = await send(method, path, json, { headers });
      const text = await response.text();
      if (response.status < 400) throw new Error(`${method} ${path} responded ${response.status}`);
      return JSON.parse(text) as Problem;
    },
  };
}

/** A random password, registered as a secret. */
export function randomPassword(): string {
  const password = `pw-${randomBytes(12).toString('hex')}`;
  evidence.registerSecret('password', password);
  return password;
}

/** A configuration with a host that does not exist and a random password. */
export function createSshServerConfig(change: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    host: 'dev.example.test',
    username: 'developer',
    auth_method: 'password',
    password: randomPassword(),
    ...change,
  };
}
