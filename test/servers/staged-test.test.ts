import { afterAll, beforeAll, beforeEach, expect, it } from '@jest/globals';
import { createHash } from 'node:crypto';
import type { ServerTestView } from '../../src/servers/schema.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { describeOn, sshHosts, type SshHosts } from '../support/hosts.ts';
import { listeningHost } from '../support/listening-host.ts';
import {
  createSshServerConfig,
  randomPassword,
  createServerClient,
  type ServerClient,
} from '../support/servers.ts';
import { adminClient } from '../support/stack.ts';

describeOn('ssh', 'testing a server', () => {
  let app: TestApp;
  let hosts: SshHosts;
  let ada: ServerClient;

  beforeAll(async () => {
    hosts = sshHosts();
    const allowed = [hosts.plain, hosts.jump].map(({ host, port }) => `${host}:${port}`);
    app = await startApp({ env: { EGRESS_ALLOW: ['127.0.0.1', ...allowed].join(',') } });
  });
  beforeEach(async () => {
    ada = await createServerClient(app);
  });
  afterAll(async () => {
    await app.stop();
  });

  const account = (address: { host: string; port: number }, change: Record<string, unknown> = {}) => ({
    ...{ host: address.host, port: address.port, username: hosts.user },
    ...{ auth_method: 'password', password: hosts.password, ...change },
  });
  const outcome = ({ details }: ServerTestView) =>
    Object.fromEntries(details.stages.map(({ name, status }) => [name, status]));

  it('returns an unknown host key, and passes all stages after its confirmation', async () => {
    const { id } = await ada.add({ connection_config: account(hosts.plain) });
    const first = await ada.test(id);
    expect(first).toMatchObject({
      status: 'host_key_unknown',
      details: { host_key: { ...hosts.plain.hostKey, hop: null } },
    });
    expect(outcome(first)).toMatchObject({ tcp: 'ok', authentication: 'skipped', echo: 'skipped' });
    expect(await ada.get(id)).toMatchObject({
      ...{ test_status: 'host_key_unknown', version: 1, host_key: null },
      last_tested_at: expect.stringMatching(/Z$/),
      test_details: { message: first.message, ...first.details },
    });
    const { type, fingerprint } = hosts.plain.hostKey;
    const confirmed = await ada.confirm(id, { type, fingerprint });
    expect(confirmed).toMatchObject({ test_status: 'untested', last_tested_at: null, test_details: null });
    const second = await ada.test(id);
    expect(second).toMatchObject({ status: 'online', details: { host_key: null } });
    expect(outcome(second)).toMatchObject({
      host_key: 'ok',
      authentication: 'ok',
      echo: 'ok',
      cleanup: 'ok',
    });
    expect(second.details.stages.every(({ message }) => message.length > 0)).toBe(true);
    expect(await ada.get(id)).toMatchObject({ test_status: 'online', version: 2 });
    expect(app.events('execution_server_tested').at(-1)).toMatchObject({ id, status: 'online' });
    const trail = (await (await app.call('/api/v1/audit', { session: ada.session })).json()) as {
      data: { action: string; object: string }[];
    };
    expect(trail.data.map(({ action }) => action)).toEqual([
      ...['server.tested', 'server.host_key_confirmed', 'server.tested', 'server.added', 'session.started'],
    ]);
  });

  it('names the interpreters, and shows no value of the environment that runs receive', async () => {
    const token = randomPassword();
    const config = account(hosts.plain, {
      interpreters: { javascript: '/nowhere/node' },
      environment: { TOKEN: token, PATH: '/usr/local/bin:/usr/bin:/bin' },
    });
    const { id } = await ada.add({ connection_config: config });
    await ada.confirm(id, hosts.plain.hostKey);
    const result = await ada.test(id);
    expect(result.details.stages.find(({ name }) => name === 'echo')?.message).toMatch(
      /python: \/\S+\/python3 3\.\d+\.\d+; javascript: none; bash: \/\S+\/bash \d/,
    );
    const run = await app.call(`/api/v1/execution-servers/${id}/run`, {
      ...{ method: 'POST', session: ada.session, headers: { accept: 'application/json' } },
      json: { command: 'printf %s "$TOKEN" | sha256sum' },
    });
    const { stdout } = (await run.json()) as { stdout: string };
    expect(stdout.split(' ')[0]).toBe(createHash('sha256').update(token).digest('hex'));
    const shown = JSON.stringify([result, await ada.get(id), app.events('execution_server_tested')]);
    expect(shown.includes(token)).toBe(false);
  });

  it('fails for a changed host key, and returns both keys', async () => {
    const { id } = await ada.add({ connection_config: account(hosts.plain) });
    const known = { type: 'ssh-ed25519', fingerprint: `SHA256:${'b'.repeat(43)}` };
    await ada.confirm(id, known);
    const tested = await ada.test(id);
    expect(tested).toMatchObject({
      status: 'host_key_changed',
      details: { host_key: { ...hosts.plain.hostKey, hop: null } },
    });
    expect(outcome(tested)).toMatchObject({ host_key: 'failed', authentication: 'skipped' });
    expect(JSON.stringify(tested)).toContain(known.fingerprint);
    expect(await ada.get(id)).toMatchObject({ host_key: known, test_status: 'host_key_changed' });
  });

  it('connects through a jump server after the confirmation of its host key', async () => {
    const jump = await ada.add({ name: 'jump', connection_config: account(hosts.jump) });
    const inner = await ada.add({
      name: 'inner',
      connection_config: account(hosts.inner, { jump: jump.id }),
    });
    const first = await ada.test(inner.id);
    expect(first).toMatchObject({
      status: 'host_key_unknown',
      details: { host_key: { ...hosts.jump.hostKey, hop: jump.id } },
    });
    await ada.confirm(inner.id, { ...hosts.jump.hostKey, hop: jump.id });
    const second = await ada.test(inner.id);
    expect(second).toMatchObject({ details: { host_key: { ...hosts.inner.hostKey, hop: null } } });
    await ada.confirm(inner.id, hosts.inner.hostKey);
    expect((await ada.test(inner.id)).status).toBe('online');
    expect(await ada.get(jump.id)).toMatchObject({ host_key: hosts.jump.hostKey });
  });

  it('reports a wrong password', async () => {
    const config = account(hosts.plain, { password: randomPassword() });
    const { id } = await ada.add({ connection_config: config });
    await ada.confirm(id, hosts.plain.hostKey);
    const tested = await ada.test(id);
    expect(tested.status).toBe('auth_failed');
    expect(outcome(tested)).toMatchObject({ host_key: 'ok', authentication: 'failed', echo: 'skipped' });
  });

  it('tests a configuration and a host key without storing them', async () => {
    const input = { server_type: 'ssh', connection_config: account(hosts.plain) };
    const response = await ada.send('POST', '/test', input);
    expect(await response.json()).toMatchObject({
      status: 'host_key_unknown',
      details: { host_key: { ...hosts.plain.hostKey, hop: null } },
    });
    const { type, fingerprint } = hosts.plain.hostKey;
    const again = await ada.send('POST', '/test', { ...input, host_key: { type, fingerprint } });
    expect(await again.json()).toMatchObject({ status: 'online' });
    expect(await ada.list()).toEqual([]);
    for (const [change, path] of [
      [
        { connection_config: createSshServerConfig({ password: '***stored***' }) },
        'connection_config.password',
      ],
      [{ connection_config: {} }, 'connection_config.host'],
      [{ host_key: { type: 'x', fingerprint: 'y' } }, 'host_key.fingerprint'],
      [{ name: 'x' }, 'body'],
    ] as const) {
      const refused = await ada.expectRefusal('POST', '/test', { ...input, ...change });
      expect(refused.errors?.map((each) => each.path)).toContain(path);
    }
  });

  it('distinguishes addresses that do not answer from forbidden ones, and these not from names that do not exist', async () => {
    const closedHost = await listeningHost();
    await closedHost[Symbol.asyncDispose]();
    const { port } = closedHost;
    const statuses = [];
    for (const host of ['169.254.169.254', '10.99.99.99', 'no-such-name.invalid', '127.0.0.1']) {
      const { id } = await ada.add({
        connection_config: createSshServerConfig({ host, port: host === '127.0.0.1' ? port : 22 }),
      });
      statuses.push((await ada.test(id)).status);
      await ada.remove(id);
    }
    expect(statuses).toEqual(['forbidden', 'forbidden', 'forbidden', 'offline']);
    expect(app.events('address_refused').map(({ host, reason }) => [host, reason])).toEqual(
      expect.arrayContaining([
        ['10.99.99.99', 'forbidden'],
        ['no-such-name.invalid', 'not_found'],
      ]),
    );
  });

  it('is limited to ten times a minute, and a refusal has a Retry-After header', async () => {
    const { id } = await ada.add({ connection_config: createSshServerConfig({ host: '169.254.169.254' }) });
    for (let n = 0; n < 10; n += 1) expect((await ada.send('POST', `/${id}/test`)).status).toBe(200);
    const input = { server_type: 'ssh', connection_config: createSshServerConfig() };
    for (const [path, json] of [[`/${id}/test`], ['/test', input]] as const) {
      const response = await ada.send('POST', path, json);
      expect(response.status).toBe(429);
      expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(await response.json()).toMatchObject({ code: 'rate_limited' });
    }
    const bob = await createServerClient(app);
    expect((await bob.send('POST', '/test', input)).status).toBe(200);
  });

  it('does not count settings that are refused', async () => {
    const input = { server_type: 'ssh', connection_config: {} };
    for (let count = 0; count < 11; count += 1)
      expect((await ada.send('POST', '/test', input)).status).toBe(400);
  });

  it('does not store the result of a previous version', async () => {
    await using host = await listeningHost();
    const { id } = await ada.add({
      connection_config: createSshServerConfig({ host: host.host, port: host.port }),
    });
    const under = ada.send('POST', `/${id}/test`);
    await host.waitForConnections();
    await ada.change(id, { name: 'changed' });
    host.closeConnections();
    const tested = (await (await under).json()) as ServerTestView;
    expect(tested.status).not.toBe('online');
    expect(await ada.get(id)).toMatchObject({ test_status: 'untested', last_tested_at: null });
  });

  it('ends when its client disconnects, and stores no result', async () => {
    await using host = await listeningHost();
    const { id } = await ada.add({
      connection_config: createSshServerConfig({ host: host.host, port: host.port }),
    });
    // This test started earlier and its client stays connected; without a disconnection it would end first.
    const staying = ada.send('POST', `/${id}/test`);
    await host.waitForConnections(1);
    const leaving = new AbortController();
    const left = expect(
      ada.send('POST', `/${id}/test`, undefined, { signal: leaving.signal }),
    ).rejects.toThrow();
    await host.waitForConnections(2);
    leaving.abort();
    await left;
    expect(await host.firstClosed).toBe(1);
    expect(await ada.get(id)).toMatchObject({ test_status: 'untested' });
    host.closeConnections();
    expect((await staying).status).toBe(200);
  });

  it('ends when its user is disabled', async () => {
    await using host = await listeningHost();
    const { id } = await ada.add({
      connection_config: createSshServerConfig({ host: host.host, port: host.port }),
    });
    const under = ada.send('POST', `/${id}/test`);
    await host.waitForConnections();
    const admin = await adminClient();
    await admin.users.update({ id: ada.user.id }, { enabled: false });
    expect((await under).status).toBe(401);
    await host.firstClosed;
  });
});
