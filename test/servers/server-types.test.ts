import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { randomBytes, randomUUID } from 'node:crypto';
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
/** Through which a Docker engine is reached. */
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

/** One of each kind that somebody may add from anywhere, with all its secrets. */
const SAMPLES: Record<Exclude<ServerType, 'local'>, () => { config: Config; elsewhere: Config }> = {
  ssh: () => ({ config: createSshServerConfig(), elsewhere: { port: 2022 } }),
  docker: () => ({
    config: { host: ssh, image: 'python:3.13-slim', environment: { API_TOKEN: randomToken() } },
    elsewhere: { host: 'tcp://engine.example.test:2376' },
  }),
  kubernetes: () => ({
    config: {
      ...{ cluster_url: 'https://cluster.example.test:6443', namespace: 'runner', image: 'python:3.13' },
      service_account_token: randomToken(),
    },
    elsewhere: { cluster_url: 'https://other.example.test:6443' },
  }),
};
const KINDS = Object.keys(SAMPLES) as Exclude<ServerType, 'local'>[];

describe.each(KINDS)('a server of the kind %s', (type) => {
  it('is stored without a secret in the clear, kept through a change, and opened as it was entered', async () => {
    const { config } = SAMPLES[type]();
    const { id } = await ada.add({ server_type: type, connection_config: config });
    const text = JSON.stringify(await direct.storedConfig(id));
    const shown = (await ada.get(id)).connection_config;
    const secrets = Object.keys(shown).filter((member) => shown[member] === STORED);
    expect(secrets.length).toBeGreaterThan(0);
    for (const member of secrets) expect(text).not.toContain(secretText(config[member]));
    // What is shown can be sent back as it is.
    await ada.change(id, { connection_config: shown });
    await ada.change(id, { name: 'renamed' });
    if (type === 'ssh') await ada.confirm(id, HOST_KEY);
    const { target, runner, name } = await direct.service.openForUse(ada.user.id, id);
    expect([target.config, runner.type, name]).toEqual([expect.objectContaining(config), type, 'renamed']);
  });

  it('takes another address only together with its secrets', async () => {
    const { config, elsewhere } = SAMPLES[type]();
    const { id } = await ada.add({ server_type: type, connection_config: config });
    const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: elsewhere });
    expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
    const shown = (await ada.get(id)).connection_config;
    expect(shown).toMatchObject({ ...config, ...maskedLike(shown) });
  });
});

describe('a Docker server on an SSH server', () => {
  const engine = (host: string) => ({ server_type: 'docker' as const, connection_config: { host } });

  it('is opened with it, and needs its host key', async () => {
    const { id } = await ada.add(engine(ssh));
    const { target } = await direct.service.openForUse(ada.user.id, id);
    expect(target.hostKey).toBeNull();
    expect(target.jumpServers.get(ssh)).toMatchObject({ serverId: ssh, hostKey: HOST_KEY });
    const other = await ada.add({ connection_config: createSshServerConfig() });
    const second = await ada.add(engine(other.id));
    await expect(direct.service.openForUse(ada.user.id, second.id)).rejects.toMatchObject({
      code: 'host_key_unconfirmed',
      extra: { server_id: other.id },
    });
    const confirmed = await ada.confirm(second.id, { ...HOST_KEY, hop: other.id });
    expect(confirmed.id).toBe(other.id);
    const none = await ada.expectRefusal('POST', `/${second.id}/host-key`, HOST_KEY);
    expect(none).toMatchObject({ status: 400, detail: expect.stringMatching(/has no host key/) });
  });

  it('may not stand on a server of another kind, of another person, or of none', async () => {
    const docker = await ada.add(engine(ssh));
    const bob = await createServerClient(app);
    const theirs = await bob.add({ connection_config: createSshServerConfig() });
    for (const host of [docker.id, theirs.id, randomUUID()]) {
      const refused = await ada.expectRefusal('POST', '', { name: 'x', ...engine(host) });
      expect(refused).toMatchObject({ status: 400, errors: [{ path: 'connection_config.host' }] });
    }
  });

  it('is never the socket of this machine', async () => {
    for (const host of ['unix:///var/run/docker.sock', '/var/run/docker.sock', 'npipe:////./pipe/docker'])
      expect(await ada.expectRefusal('POST', '', { name: 'x', ...engine(host) })).toMatchObject({
        status: 400,
        errors: [{ path: 'connection_config.host' }],
      });
  });
});

describe('a pasted kubeconfig', () => {
  it('that would run a program here is refused by name, and nothing of it is stored or repeated', async () => {
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

describe('what is kept of a server', () => {
  it('is let go of when it, or one that it goes through, is changed, confirmed or deleted', async () => {
    const inner = await ada.add({ connection_config: createSshServerConfig({ jump: ssh }) });
    const engine = await ada.add({ server_type: 'docker', connection_config: { host: inner.id } });
    await ada.add({ connection_config: createSshServerConfig() });
    const author = { userId: ada.user.id, requestId: 'x' };
    const told = async (work: () => Promise<unknown>) => {
      const before = direct.forgotten.length;
      await work();
      return direct.forgotten.slice(before).toSorted();
    };
    const all = [ssh, inner.id, engine.id].toSorted();
    const { service } = direct;
    expect(await told(() => service.update(author, ssh, { name: 'x' }, undefined))).toEqual(all);
    const key = { ...HOST_KEY, fingerprint: `SHA256:${'b'.repeat(43)}` };
    expect(await told(() => service.confirmHostKey(author, ssh, key))).toEqual(all);
    expect(await told(() => service.update(author, engine.id, { name: 'x' }, undefined))).toEqual([
      engine.id,
    ]);
    expect(await told(() => service.remove(author, ssh, undefined))).toEqual(all);
  });
});

it('a configuration that is longer than anybody needs is refused', async () => {
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

it('every kind that is built in is tried here', () => {
  const dialer = { connect: () => Promise.reject(new Error('nobody')) } as never;
  const kinds = [...createRunners({ dialer, log: {} as never }).keys()].filter((type) => type !== 'local');
  expect(kinds).toEqual(KINDS);
});

/** The text by which a secret would be found. */
function secretText(secret: unknown): string {
  return typeof secret === 'string' ? secret : String(Object.values(secret as object)[0]);
}

function maskedLike(shown: Config): Config {
  return Object.fromEntries(Object.entries(shown).filter(([, value]) => value === STORED));
}
