import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import type { HostKey } from '../../src/lib/ssh/host-key.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { registerPrivateKey } from '../support/hosts.ts';
import {
  createSshServerConfig,
  randomPassword,
  createServerClient,
  SERVERS,
  type ServerClient,
} from '../support/servers.ts';
import { setSignInAge } from '../support/sign-in-age.ts';
import { adminClient } from '../support/stack.ts';
import { until } from '../support/until.ts';

let app: TestApp;
let ada: ServerClient;

beforeAll(async () => {
  app = await startApp();
  ada = await createServerClient(app);
});
afterAll(async () => {
  await app.stop();
});

describe('adding a server', () => {
  it('answers 201 with the location, the version and all members except the secrets', async () => {
    const config = createSshServerConfig({ port: 2222 });
    const input = {
      name: '  Dev  ',
      server_type: 'ssh',
      connection_config: config,
      workspace_path: '/srv/w',
    };
    const response = await ada.send('POST', '', input);
    const text = await response.text();
    const server = JSON.parse(text) as { id: string; created_at: string };
    expect(response.status).toBe(201);
    expect(response.headers.get('location')).toBe(`${SERVERS}/${server.id}`);
    expect(response.headers.get('etag')).toBe('"1"');
    expect(text).not.toContain(config['password']);
    expect(server).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      scope: 'personal',
      name: 'Dev',
      server_type: 'ssh',
      connection_config: {
        ...{ host: 'dev.example.test', port: 2222, username: 'developer', auth_method: 'password' },
        ...{ password: '***stored***', private_key: null, passphrase: null, jump: null },
        ...{ interpreters: null, environment: null, setup: null },
      },
      workspace_path: '/srv/w',
      is_default: true,
      is_active: true,
      token_runs: false,
      version: 1,
      host_key: null,
      last_tested_at: null,
      last_used_at: null,
      test_status: 'untested',
      test_details: null,
      created_at: expect.stringMatching(/^\d{4}-.*Z$/),
      updated_at: server.created_at,
    });
    expect(await ada.get(server.id)).toEqual(server);
    expect(await ada.list()).toEqual([server]);
    await ada.remove(server.id);
  });

  it('accepts the example of the guide, with and without a trailing slash', async () => {
    const { privateKey: key } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    });
    registerPrivateKey(key);
    const printed = {
      name: 'My Dev Server',
      server_type: 'ssh',
      connection_config: {
        ...{ host: 'dev.example.com', port: 22, username: 'developer', auth_method: 'key', private_key: key },
      },
      workspace_path: '/home/developer/workspace',
      is_default: true,
    };
    const response = await ada.send('POST', '/', printed);
    expect(response.status).toBe(201);
    const { id } = (await response.json()) as { id: string };
    expect((await ada.send('GET', '/')).status).toBe(200);
    await ada.remove(id);
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['no name', { name: undefined }, 'name'],
    ['a blank name', { name: '   ' }, 'name'],
    ['a name of 256 characters', { name: 'x'.repeat(256) }, 'name'],
    ['a name with a line break', { name: 'a\nb' }, 'name'],
    ['a name with a lone surrogate', { name: 'a\ud800' }, 'name'],
    ['an unknown server type', { server_type: 'telnet' }, 'server_type'],
    ['no configuration', { connection_config: undefined }, 'connection_config'],
    ['a configuration that is a list', { connection_config: [] }, 'connection_config'],
    [
      'a configuration with a null character',
      { connection_config: createSshServerConfig({ host: 'a\0b' }) },
      'connection_config',
    ],
    [
      'a host with a shell command',
      { connection_config: createSshServerConfig({ host: 'x;reboot' }) },
      'connection_config.host',
    ],
    [
      'an invalid port',
      { connection_config: createSshServerConfig({ port: 70_000 }) },
      'connection_config.port',
    ],
    [
      'no password for the auth method password',
      { connection_config: createSshServerConfig({ password: null }) },
      'connection_config.password',
    ],
    [
      'an undeclared member',
      { connection_config: createSshServerConfig({ proxy: 'x' }) },
      'connection_config',
    ],
    [
      'the mask as a password',
      { connection_config: createSshServerConfig({ password: '***stored***' }) },
      'connection_config.password',
    ],
    [
      'the mask in another member',
      { connection_config: createSshServerConfig({ username: '***stored***' }) },
      'connection_config.username',
    ],
    ['a relative workspace', { workspace_path: 'home' }, 'workspace_path'],
    ['a workspace with a line break', { workspace_path: '/home\nx' }, 'workspace_path'],
    ['a workspace of 501 characters', { workspace_path: `/${'x'.repeat(500)}` }, 'workspace_path'],
    ['an unknown member', { user_id: 'x' }, 'body'],
    ['a boolean that is text', { is_default: 'yes' }, 'is_default'],
  ])('refuses %s with the name of the member, and stores nothing', async (_name, change, named) => {
    const password = randomPassword();
    const input = {
      name: 'x',
      server_type: 'ssh',
      connection_config: createSshServerConfig({ password }),
      ...change,
    };
    const refused = await ada.expectRefusal('POST', '', input);
    expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
    expect(refused.errors?.map(({ path }) => path)).toContain(named);
    expect(JSON.stringify(refused)).not.toContain(password);
    expect(await ada.list()).toEqual([]);
  });

  it('refuses a configuration that is nested too deeply', async () => {
    const depth = 90;
    const host = `${'['.repeat(depth)}${']'.repeat(depth)}`;
    const response = await app.call(SERVERS, {
      method: 'POST',
      session: ada.session,
      body: `{"name":"x","server_type":"ssh","connection_config":{"host":${host}}}`,
      headers: { 'content-type': 'application/json' },
    });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ errors: [{ path: 'connection_config' }] });
  });
});

describe('changing a server', () => {
  it('keeps missing members, clears null members and raises the version', async () => {
    const bob = await createServerClient(app);
    const { id } = await bob.add({
      name: 'Old',
      connection_config: createSshServerConfig(),
      workspace_path: '/w',
    });
    const named = await bob.change(id, { name: 'New' });
    expect(named).toMatchObject({ name: 'New', workspace_path: '/w', version: 2, is_default: true });
    const cleared = await bob.change(id, { workspace_path: null, is_active: false });
    expect(cleared).toMatchObject({ name: 'New', workspace_path: null, is_active: false, version: 3 });
    expect(Date.parse(cleared.updated_at)).toBeGreaterThan(Date.parse(cleared.created_at));
  });

  it('obeys If-Match', async () => {
    const bob = await createServerClient(app);
    const { id } = await bob.add({ connection_config: createSshServerConfig() });
    for (const tag of ['"2"', 'W/"1"', '1', ''])
      expect(await bob.expectRefusal('PUT', `/${id}`, { name: 'x' }, { 'if-match': tag })).toMatchObject({
        status: 412,
        code: 'version_mismatch',
        version: 1,
      });
    const header = { headers: { 'if-match': '"7", "1"' } };
    const changed = await bob.send('PUT', `/${id}`, { name: 'x' }, header);
    expect([changed.status, changed.headers.get('etag')]).toEqual([200, '"2"']);
    expect((await bob.expectRefusal('DELETE', `/${id}`, undefined, { 'if-match': '"1"' })).status).toBe(412);
    expect((await bob.send('DELETE', `/${id}`, undefined, { headers: { 'if-match': '*' } })).status).toBe(
      200,
    );
  });

  it('cannot change its type', async () => {
    const bob = await createServerClient(app);
    const { id } = await bob.add({ connection_config: createSshServerConfig() });
    expect(await bob.change(id, { server_type: 'ssh' })).toMatchObject({ server_type: 'ssh' });
    const refused = await bob.expectRefusal('PUT', `/${id}`, { server_type: 'docker' });
    expect(refused).toMatchObject({ status: 400, errors: [{ path: 'server_type' }] });
  });
});

describe('the default server', () => {
  it('is the first active server until another one is chosen', async () => {
    const bob = await createServerClient(app);
    expect(await bob.expectRefusal('GET', '/default')).toMatchObject({
      status: 404,
      code: 'no_default_server',
    });
    const paused = await bob.add({
      name: 'paused',
      connection_config: createSshServerConfig(),
      is_active: false,
    });
    expect(paused.is_default).toBe(false);
    const first = await bob.add({ name: 'first', connection_config: createSshServerConfig() });
    const second = await bob.add({ name: 'second', connection_config: createSshServerConfig() });
    expect([first.is_default, second.is_default]).toEqual([true, false]);
    const response = await bob.send('GET', '/default');
    expect([response.headers.get('etag'), await response.json()]).toEqual(['"1"', first]);
    await bob.change(second.id, { is_default: true });
    const defaults = (await bob.list()).map(({ name, is_default, version }) => [name, is_default, version]);
    expect(defaults).toEqual([
      ['paused', false, 1],
      ['first', false, 2],
      ['second', true, 2],
    ]);
    const third = await bob.add({
      name: 'third',
      connection_config: createSshServerConfig(),
      is_default: true,
    });
    expect((await bob.list()).filter(({ is_default }) => is_default)).toEqual([third]);
  });

  it('is the first server that is switched on, unless is_default is false', async () => {
    const bob = await createServerClient(app);
    const { id } = await bob.add({ connection_config: createSshServerConfig(), is_active: false });
    expect((await bob.change(id, { is_active: true, is_default: false })).is_default).toBe(false);
    await bob.change(id, { is_active: false });
    expect((await bob.change(id, { is_active: true })).is_default).toBe(true);
  });

  it('is not replaced when it is deleted, and the response says so', async () => {
    const bob = await createServerClient(app);
    const first = await bob.add({ name: 'First', connection_config: createSshServerConfig() });
    const second = await bob.add({ name: 'Second', connection_config: createSshServerConfig() });
    const third = await bob.add({ name: 'Third', connection_config: createSshServerConfig() });
    expect(await bob.remove(third.id)).toEqual({ message: '“Third” deleted.', default_server_id: first.id });
    expect(await bob.remove(first.id)).toEqual({
      message: '“First” deleted. It was the default. You have no default server until you choose one.',
      default_server_id: null,
    });
    expect(await bob.expectRefusal('GET', '/default')).toMatchObject({
      status: 404,
      code: 'no_default_server',
    });
    const added = await bob.add({ connection_config: createSshServerConfig() });
    expect(added.is_default).toBe(false);
    expect((await bob.get(second.id)).is_default).toBe(false);
  });
});

describe('the host key of a server', () => {
  it('is confirmed at any time, and exchanged for another one only after a recent sign-in', async () => {
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    const [first, other] = ['a', 'b'].map((letter) => ({
      ...{ type: 'ssh-ed25519', fingerprint: `SHA256:${letter.repeat(43)}` },
    })) as [HostKey, HostKey];
    await setSignInAge(app, ada.user.id, 16);
    expect(await ada.confirm(id, first)).toMatchObject({ host_key: first });
    expect(await ada.expectRefusal('POST', `/${id}/host-key`, other)).toMatchObject({
      ...{ status: 403, code: 'reauth_required' },
    });
    expect(await ada.confirm(id, first)).toMatchObject({ host_key: first });
    await setSignInAge(app, ada.user.id, 14);
    expect(await ada.confirm(id, other)).toMatchObject({ host_key: other });
    await ada.remove(id);
  });
});

describe("another user's server", () => {
  it('is not found by any route', async () => {
    const bob = await createServerClient(app);
    const { id } = await bob.add({ connection_config: createSshServerConfig() });
    const key = { type: 'ssh-ed25519', fingerprint: `SHA256:${'a'.repeat(43)}` };
    const calls = [
      ['GET', `/${id}`],
      ['PUT', `/${id}`, { name: 'mine' }],
      ['DELETE', `/${id}`],
      ['POST', `/${id}/test`],
      ['POST', `/${id}/host-key`, key],
    ] as const;
    for (const [method, path, json] of calls)
      expect(await ada.expectRefusal(method, path, json)).toMatchObject({ status: 404, code: 'not_found' });
    expect(await bob.get(id)).toMatchObject({ name: 'A server', version: 1 });
    expect(await ada.list()).toEqual([]);
  });

  it('gets the same response as an unknown or malformed id', async () => {
    for (const id of [randomUUID(), 'x', '0', '%00', '..%2f'])
      expect(await ada.expectRefusal('GET', `/${id}`)).toMatchObject({ status: 404, code: 'not_found' });
  });
});

describe('below the Starter tier', () => {
  it('servers can only be read and deleted', async () => {
    const bob = await createServerClient(app);
    const { id } = await bob.add({ connection_config: createSshServerConfig() });
    const admin = await adminClient();
    const user = await admin.users.findOne({ id: bob.user.id });
    const attributes = { ...user?.attributes, subscription_tier: ['trial'] };
    await admin.users.update({ id: bob.user.id }, { ...user, attributes });
    // The tier is cached for at most ten seconds.
    await untilTier(bob, 'trial');
    expect(await bob.list()).toHaveLength(1);
    const key = { type: 'ssh-ed25519', fingerprint: `SHA256:${'a'.repeat(43)}` };
    const calls = [
      ['POST', '', { name: 'x', server_type: 'ssh', connection_config: createSshServerConfig() }],
      ['PUT', `/${id}`, { name: 'x' }],
      ['POST', `/${id}/test`],
      ['POST', '/test', { server_type: 'ssh', connection_config: createSshServerConfig() }],
      ['POST', `/${id}/host-key`, key],
    ] as const;
    for (const [method, path, json] of calls)
      expect(await bob.expectRefusal(method, path, json)).toMatchObject({
        status: 403,
        code: 'tier_required',
        required_tier: 'starter',
        current_tier: 'trial',
      });
    expect((await bob.remove(id)).default_server_id).toBeNull();
  });
});

describe('the audit trail', () => {
  it('contains every change, with the id of the server only', async () => {
    const bob = await createServerClient(app);
    const { id } = await bob.add({ name: 'Secretly named', connection_config: createSshServerConfig() });
    await bob.change(id, { name: 'x' });
    await bob.remove(id);
    const response = await app.call('/api/v1/audit', { session: bob.session });
    const { data } = (await response.json()) as { data: { action: string; object: string }[] };
    expect(data.map(({ action, object }) => [action, object])).toEqual([
      ['server.deleted', `server:${id}`],
      ['server.updated', `server:${id}`],
      ['server.added', `server:${id}`],
      ['session.started', 'session'],
    ]);
    expect(JSON.stringify(data)).not.toContain('Secretly');
  });
});

async function untilTier({ session }: ServerClient, tier: string): Promise<void> {
  const ask = async () => (await (await app.call('/api/v1/me', { session })).json()) as { tier: string };
  await until(ask, (me) => me.tier === tier);
}
