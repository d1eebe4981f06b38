import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { Principal } from '../../src/http/principal.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { listeningHost } from '../support/listening-host.ts';
import { openServers, type DirectServers } from '../support/servers-direct.ts';
import { createSshServerConfig, createServerClient, type ServerClient } from '../support/servers.ts';

const HOST_KEY = { type: 'ssh-ed25519', fingerprint: `SHA256:${'a'.repeat(43)}` };

let app: TestApp;
let direct: DirectServers;
let ada: ServerClient;

beforeAll(async () => {
  app = await startApp();
  direct = await openServers(app, { testTimeoutMs: 100 });
});
beforeEach(async () => {
  ada = await createServerClient(app);
});
afterAll(async () => {
  await direct.close();
  await app.stop();
});

const open = (ref: string, userId = ada.user.id) => direct.openForRun(userId, ref);

describe('opening a server for a run', () => {
  it('returns one snapshot with decrypted secrets, by id or as the default', async () => {
    const config = createSshServerConfig();
    const { id } = await ada.add({ name: 'Dev', connection_config: config, workspace_path: '/w' });
    await ada.confirm(id, HOST_KEY);
    for (const ref of [id, 'default']) {
      const { runner, target, ...server } = await open(ref);
      expect(server).toEqual({ id, name: 'Dev', serverType: 'ssh', tokenRuns: false });
      expect(runner.type).toBe('ssh');
      expect(target).toMatchObject({
        ...{ serverId: id, owner: `user:${ada.user.id}`, version: 2, hostKey: HOST_KEY, workspacePath: '/w' },
        config,
      });
    }
  });

  it('is refused for a missing, paused or unconfirmed server and for another user’s server', async () => {
    await expect(open('default')).rejects.toMatchObject({ status: 404, code: 'no_default_server' });
    const { id } = await ada.add({ name: 'Dev', connection_config: createSshServerConfig() });
    await expect(open(id)).rejects.toMatchObject({ status: 409, code: 'host_key_unconfirmed' });
    await ada.confirm(id, HOST_KEY);
    await ada.change(id, { is_active: false });
    for (const ref of [id, 'default'])
      await expect(open(ref)).rejects.toMatchObject({ status: 409, code: 'server_paused' });
    const bob = await createServerClient(app);
    await expect(open(id, bob.user.id)).rejects.toMatchObject({ status: 404, code: 'not_found' });
    await expect(open('')).rejects.toMatchObject({ status: 404, code: 'not_found' });
    await ada.remove(id);
    await expect(open(id)).rejects.toMatchObject({ status: 404, code: 'not_found' });
  });

  it('is allowed for the cleanup of a run when the server or its jump server is paused', async () => {
    const jump = await ada.add({ connection_config: createSshServerConfig() });
    const { id } = await ada.add({ connection_config: createSshServerConfig({ jump: jump.id }) });
    for (const each of [jump.id, id]) {
      await ada.confirm(each, HOST_KEY);
      await ada.change(each, { is_active: false });
    }
    await expect(open(id)).rejects.toMatchObject({ code: 'server_paused' });
    const { target, runner } = await direct.service.openForCleanup(ada.user.id, id);
    expect(target.jumpServers.get(jump.id)).toMatchObject({ serverId: jump.id });
    expect(target.serverId).toBe(id);
    expect(runner.cleanUp).toEqual(expect.any(Function));
    const bob = await createServerClient(app);
    await expect(direct.service.openForCleanup(bob.user.id, id)).rejects.toMatchObject({ code: 'not_found' });
  });

  it('stores and logs the use without a new version', async () => {
    const { id } = await ada.add({ name: 'Dev', connection_config: createSshServerConfig() });
    await direct.service.recordUse(ada.user.id, { id, name: 'Dev' });
    expect(await ada.get(id)).toMatchObject({ version: 1, last_used_at: expect.stringMatching(/Z$/) });
  });
});

describe('a test that does not end', () => {
  it('is aborted at its time limit, which is stored as its result', async () => {
    await using silent = await listeningHost();
    const { host, port } = silent;
    const { id } = await ada.add({ connection_config: createSshServerConfig({ host, port }) });
    const user = { ...ada.user, name: null, tier: 'starter' as const };
    const principal: Principal = {
      ...{ user, credential: 'session', scopes: new Set(), token: null },
      ...{ sessionId: null, keycloakSessionId: null },
    };
    const call = { principal, requestId: 'x', disconnected: new AbortController().signal };
    const message = 'The test did not end within 0.1 s.';
    expect(await direct.service.test(call, id)).toMatchObject({ status: 'offline', message });
    expect(await ada.get(id)).toMatchObject({
      test_status: 'offline',
      test_details: { message, stages: [] },
    });
  });
});
