import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { generateSshKeyPair } from '../../src/lib/ssh/private-key.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { registerPrivateKey } from '../support/hosts.ts';
import { openServers, type DirectServers } from '../support/servers-direct.ts';
import { createServerClient, createSshServerConfig, type ServerClient } from '../support/servers.ts';

let app: TestApp;
let direct: DirectServers;
let ada: ServerClient;

beforeAll(async () => {
  app = await startApp();
  direct = await openServers(app);
  ada = await createServerClient(app);
});
afterAll(async () => {
  await direct.close();
  await app.stop();
});

const withHost = (host: string, change: Record<string, unknown> = {}) =>
  createSshServerConfig({ host, ...change });

describe('a host with port and user', () => {
  it.each<[string, Record<string, unknown>]>([
    ['10.0.0.5:2222', { host: '10.0.0.5', port: 2222, username: 'developer' }],
    ['developer@10.0.0.5', { host: '10.0.0.5', port: 22, username: 'developer' }],
    [
      'ssh://developer@dev.example.test:2222',
      { host: 'dev.example.test', port: 2222, username: 'developer' },
    ],
    ['[::1]:2222', { host: '[::1]', port: 2222, username: 'developer' }],
  ])('%j is stored in its members', async (host, expected) => {
    const { id, connection_config } = await ada.add({ connection_config: withHost(host) });
    expect(connection_config).toMatchObject(expected);
    const target = await direct.openForRun(ada.user.id, id).catch((error: unknown) => error);
    expect(target).toMatchObject({ code: 'host_key_unconfirmed' });
    await ada.remove(id);
  });

  it('gives the user name where none is sent', async () => {
    const { username: _unused, ...config } = withHost('me@dev.example.test');
    const { id, connection_config } = await ada.add({ connection_config: config });
    expect(connection_config).toMatchObject({ host: 'dev.example.test', username: 'me' });
    await ada.remove(id);
  });

  it.each<[string, Record<string, unknown>]>([
    ['10.0.0.5:2222', { port: 22 }],
    ['me@10.0.0.5', {}],
    ['me:word@10.0.0.5', {}],
    ['1:2:3', {}],
  ])('%j is a 400 beside %j, when it is saved, changed and tested', async (host, change) => {
    const connection_config = withHost(host, change);
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    for (const [method, path, body] of [
      ['POST', '', { name: 'x', server_type: 'ssh', connection_config }],
      ['PUT', `/${id}`, { connection_config }],
      ['POST', '/test', { server_type: 'ssh', connection_config }],
    ] as const) {
      const refused = await ada.expectRefusal(method, path, body);
      expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
      expect(refused.errors?.map((each) => each.path)).toEqual(['connection_config.host']);
    }
    await ada.remove(id);
  });

  it('replaces the stored port in a change that sends no other, with the secrets of the new destination', async () => {
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    const change = { host: 'dev.example.test:2222' };
    const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: change });
    expect(refused.errors?.map((each) => each.path)).toEqual(['connection_config.password']);
    const { password } = createSshServerConfig();
    const changed = await ada.change(id, { connection_config: { ...change, password } });
    expect(changed.connection_config).toMatchObject({ host: 'dev.example.test', port: 2222 });
    await ada.remove(id);
  });

  it.each(['me@10.0.0.5', '10.0.0.5:22', 'ssh://me@10.0.0.5:22'])(
    '%j is a 400 in place of the id of a jump server or the SSH server of an engine',
    async (text) => {
      for (const [server_type, connection_config, member] of [
        ['ssh', createSshServerConfig({ jump: text }), 'jump'],
        ['docker', { host: text }, 'host'],
      ] as const) {
        const refused = await ada.expectRefusal('POST', '', { name: 'x', server_type, connection_config });
        expect(refused.errors).toEqual([
          {
            path: `connection_config.${member}`,
            message: expect.stringMatching(/id .*SSH server|SSH server.* id/),
          },
        ]);
      }
    },
  );
});

describe('a private key without its lines', () => {
  const createKey = () => {
    const { privateKey } = generateSshKeyPair();
    registerPrivateKey(privateKey);
    return privateKey;
  };
  const withKey = (private_key: string) => createSshServerConfig({ auth_method: 'key', private_key });

  it('is stored with them', async () => {
    const key = createKey();
    const { id } = await ada.add({ connection_config: withKey(`"${key.replaceAll('\n', '\\n')}"`) });
    const token = (await direct.storedConfig(id))['private_key'];
    expect(JSON.parse(direct.keyring.decrypt(String(token)) ?? 'null')).toMatchObject({ value: key });
    const other = createKey();
    await ada.change(id, { connection_config: { private_key: other.replaceAll('\n', ' ') } });
    const changed = (await direct.storedConfig(id))['private_key'];
    expect(JSON.parse(direct.keyring.decrypt(String(changed)) ?? 'null')).toMatchObject({ value: other });
    await ada.remove(id);
  });

  it.each([
    ['its first line alone', (key: string) => key.split('\n')[0] ?? '', /line breaks of the key are lost/],
    [
      'a missing line',
      (key: string) => key.split('\n').toSpliced(2, 1).join('\n'),
      /cannot be read|not supported/,
    ],
  ])('is a 400 with %s', async (_name, damage, message) => {
    const connection_config = withKey(damage(createKey()));
    const refused = await ada.expectRefusal('POST', '', { name: 'x', server_type: 'ssh', connection_config });
    expect(refused.errors).toEqual([
      { path: 'connection_config.private_key', message: expect.stringMatching(message) },
    ]);
  });
});
