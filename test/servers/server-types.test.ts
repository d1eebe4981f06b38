import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { randomBytes, randomUUID } from 'node:crypto';
import type { Principal } from '../../src/http/principal.ts';
import { createRunners } from '../../src/runners/index.ts';
import type { ServerType } from '../../src/runners/runner.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { evidence } from '../support/evidence.ts';
import { openServers, type DirectServers } from '../support/servers-direct.ts';
import {
  createSshServerConfig,
  randomPassword,
  createServerClient,
  type ServerClient,
} from '../support/servers.ts';

const STORED = '***stored***';
const HOST_KEY = { type: 'ssh-ed25519', fingerprint: `SHA256:${'a'.repeat(43)}` };

let app: TestApp;
let direct: DirectServers;
let ada: ServerClient;
/** Id of the SSH server that Docker servers connect through. */
let ssh: string;

beforeAll(async () => {
  app = await startApp();
  direct = await openServers(app);
});
beforeEach(async () => {
  ada = await createServerClient(app);
  ssh = (await ada.add({ name: 'Host', connection_config: createSshServerConfig() })).id;
  await ada.confirm(ssh, HOST_KEY);
});
afterAll(async () => {
  await direct.close();
  await app.stop();
});

function randomToken(): string {
  const token = `token-${randomBytes(16).toString('hex')}`;
  evidence.registerSecret('access token', token);
  return token;
}

type Config = Record<string, unknown>;

/** One server of each type except local, with all its secrets. */
const SAMPLES: Record<Exclude<ServerType, 'local'>, () => { config: Config; otherAddress: Config }> = {
  ssh: () => ({
    config: createSshServerConfig({
      interpreters: { python: '/opt/conda envs/bin/python3', javascript: null, bash: 'bash' },
      environment: { API_TOKEN: randomToken() },
      setup: `export SETUP_TOKEN=${randomToken()}`,
    }),
    otherAddress: { port: 2022 },
  }),
  docker: () => ({
    config: {
      ...{ host: ssh, image: 'python:3.13-slim', environment: { API_TOKEN: randomToken() } },
      setup: `export SETUP_TOKEN=${randomToken()}`,
    },
    otherAddress: { host: 'tcp://engine.example.test:2376' },
  }),
  kubernetes: () => ({
    config: {
      ...{ cluster_url: 'https://cluster.example.test:6443', namespace: 'runner', image: 'python:3.13' },
      service_account_token: randomToken(),
      setup: `export SETUP_TOKEN=${randomToken()}`,
    },
    otherAddress: { cluster_url: 'https://other.example.test:6443' },
  }),
};
const TYPES = Object.keys(SAMPLES) as Exclude<ServerType, 'local'>[];

describe.each(TYPES)('a server of type %s', (type) => {
  it('is stored without a secret in the clear, survives a change and decrypts to the entered values', async () => {
    const { config } = SAMPLES[type]();
    const { id } = await ada.add({ server_type: type, connection_config: config });
    const text = JSON.stringify(await direct.storedConfig(id));
    const shown = (await ada.get(id)).connection_config;
    const secrets = Object.keys(shown).filter((member) => shown[member] === STORED);
    expect(secrets.length).toBeGreaterThan(0);
    for (const member of secrets) expect(text).not.toContain(secretText(config[member]));
    // The response can be sent back unchanged.
    await ada.change(id, { connection_config: shown });
    await ada.change(id, { name: 'renamed' });
    if (type === 'ssh') await ada.confirm(id, HOST_KEY);
    const { target, runner, name } = await direct.openForRun(ada.user.id, id);
    expect([target.config, runner.type, name]).toEqual([expect.objectContaining(config), type, 'renamed']);
  });

  it('accepts another address only together with its secrets', async () => {
    const { config, otherAddress } = SAMPLES[type]();
    const { id } = await ada.add({ server_type: type, connection_config: config });
    const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: otherAddress });
    expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
    const shown = (await ada.get(id)).connection_config;
    expect(shown).toMatchObject({ ...config, ...maskedLike(shown) });
  });
});

it('the image of a Kubernetes server changes only with its set-up, which programs of the image can read', async () => {
  const { config } = SAMPLES.kubernetes();
  const { id } = await ada.add({ server_type: 'kubernetes', connection_config: config });
  const image = 'other:1';
  const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: { image } });
  expect(refused.errors?.map(({ path }) => path)).toEqual(['connection_config.setup']);
  const changed = await ada.change(id, { connection_config: { image, setup: null } });
  expect(changed.connection_config).toMatchObject({ image, setup: null, service_account_token: STORED });
});

/** Texts that Zod writes by itself. */
const RAW_MESSAGE = /invalid input|invalid option|unrecognized|too (big|small)|expected|>=|<=/i;

describe('the messages of a configuration with values of wrong types', () => {
  const wrongValues = [
    5,
    'x'.repeat(70_000),
    [5],
    { '1 bad': 5, B: {} },
    [{ source: 1, target: 2, extra: 3 }],
    true,
  ];
  it.each([...TYPES, 'local' as const])('are in the words of the API for the type %s', async (type) => {
    const members = Object.keys(type === 'local' ? {} : SAMPLES[type]().config);
    const messages: string[] = [];
    for (const value of wrongValues) {
      const values = [...members, 'undeclared', 'volumes', 'environment', 'interpreters', 'kubeconfig'].map(
        (name) => [name, value],
      );
      const body = {
        name: 'Wrong',
        server_type: type,
        connection_config: Object.fromEntries(values) as Config,
      };
      const refused = await ada.expectRefusal('POST', '', body);
      expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
      messages.push(...(refused.errors ?? []).map(({ message }) => message));
    }
    expect(messages).not.toEqual([]);
    expect(messages.filter((message) => RAW_MESSAGE.test(message))).toEqual([]);
  });
});

describe('a Docker server on an SSH server', () => {
  const engine = (host: string) => ({ server_type: 'docker' as const, connection_config: { host } });

  it('is opened together with it, and requires its host key', async () => {
    const { id } = await ada.add(engine(ssh));
    const { target } = await direct.openForRun(ada.user.id, id);
    expect(target.hostKey).toBeNull();
    expect(target.jumpServers.get(ssh)).toMatchObject({ serverId: ssh, hostKey: HOST_KEY });
    const other = await ada.add({ connection_config: createSshServerConfig() });
    const second = await ada.add(engine(other.id));
    await expect(direct.openForRun(ada.user.id, second.id)).rejects.toMatchObject({
      code: 'host_key_unconfirmed',
      extra: { server_id: other.id },
    });
    const confirmed = await ada.confirm(second.id, { ...HOST_KEY, hop: other.id });
    expect(confirmed.id).toBe(other.id);
    const none = await ada.expectRefusal('POST', `/${second.id}/host-key`, HOST_KEY);
    expect(none).toMatchObject({ status: 400, detail: expect.stringMatching(/has no host key/) });
  });

  it('must not connect through a server of another type, another user’s server or an unknown one', async () => {
    const docker = await ada.add(engine(ssh));
    const bob = await createServerClient(app);
    const foreign = await bob.add({ connection_config: createSshServerConfig() });
    for (const host of [docker.id, foreign.id, randomUUID()]) {
      const refused = await ada.expectRefusal('POST', '', { name: 'x', ...engine(host) });
      expect(refused).toMatchObject({ status: 400, errors: [{ path: 'connection_config.host' }] });
    }
  });

  it('must not use a socket of this machine', async () => {
    for (const host of ['unix:///var/run/docker.sock', '/var/run/docker.sock', 'npipe:////./pipe/docker'])
      expect(await ada.expectRefusal('POST', '', { name: 'x', ...engine(host) })).toMatchObject({
        status: 400,
        errors: [{ path: 'connection_config.host' }],
      });
  });
});

describe('a pasted kubeconfig', () => {
  it('that would run a program here is refused with its member; it is neither stored nor repeated', async () => {
    const token = randomToken();
    const kubeconfig = JSON.stringify({
      ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'c' },
      clusters: [{ name: 'c', cluster: { server: 'https://cluster.example.test' } }],
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u', namespace: 'n' } }],
      users: [{ name: 'u', user: { token, exec: { command: 'touch', args: ['/tmp/x'] } } }],
    });
    const refused = await ada.expectRefusal('POST', '', {
      ...{ name: 'x', server_type: 'kubernetes' },
      connection_config: { kubeconfig, image: 'busybox' },
    });
    expect(refused).toMatchObject({
      status: 400,
      errors: [{ path: 'connection_config.kubeconfig', message: expect.stringMatching(/exec/) }],
    });
    expect(JSON.stringify(refused)).not.toContain(token);
    expect(await ada.list()).toHaveLength(1);
  });
});

describe('the connections of a server', () => {
  it('are closed when it or one of its jump servers is changed, confirmed or deleted', async () => {
    const inner = await ada.add({ connection_config: createSshServerConfig({ jump: ssh }) });
    const engine = await ada.add({ server_type: 'docker', connection_config: { host: inner.id } });
    await ada.add({ connection_config: createSshServerConfig() });
    const author = { userId: ada.user.id, requestId: 'x' };
    const principal: Principal = {
      user: { ...ada.user, name: null, tier: 'starter' },
      ...{ credential: 'session', scopes: new Set(), token: null, sessionId: 'x', keycloakSessionId: null },
      authenticatedAtMs: Date.now(),
    };
    const collectReleased = async (work: () => Promise<unknown>) => {
      const before = direct.released.length;
      await work();
      return direct.released.slice(before).toSorted();
    };
    const all = [ssh, inner.id, engine.id].toSorted();
    const { service } = direct;
    expect(await collectReleased(() => service.update(author, ssh, { name: 'x' }, undefined))).toEqual(all);
    const key = { ...HOST_KEY, fingerprint: `SHA256:${'b'.repeat(43)}` };
    expect(
      await collectReleased(() => service.confirmHostKey({ principal, requestId: 'x' }, ssh, key)),
    ).toEqual(all);
    expect(await collectReleased(() => service.update(author, engine.id, { name: 'x' }, undefined))).toEqual([
      engine.id,
    ]);
    expect(await collectReleased(() => service.remove(author, ssh, undefined))).toEqual(all);
  });
});

it('refuses a configuration that is too long', async () => {
  const value = randomPassword().repeat(1_000);
  const environment = Object.fromEntries(Array.from({ length: 6 }, (_each, n) => [`NAME_${n}`, value]));
  const connection_config = { host: ssh, environment };
  const refused = await ada.expectRefusal('POST', '', {
    name: 'x',
    server_type: 'docker',
    connection_config,
  });
  expect(refused).toMatchObject({
    status: 400,
    errors: [{ path: 'connection_config', message: expect.stringMatching(/131072 characters/) }],
  });
});

it('this file tests every built-in server type except local', () => {
  const dialer = { connect: () => Promise.reject(new Error('unused')) } as never;
  const types = [...createRunners({ dialer, log: {} as never }).keys()].filter((type) => type !== 'local');
  expect(types).toEqual(TYPES);
});

/** The text of a secret to search for. */
function secretText(secret: unknown): string {
  return typeof secret === 'string' ? secret : String(Object.values(secret as object)[0]);
}

function maskedLike(shown: Config): Config {
  return Object.fromEntries(Object.entries(shown).filter(([, value]) => value === STORED));
}
