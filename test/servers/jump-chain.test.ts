import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../support/app.ts';
import { openServers, type DirectServers } from '../support/servers-direct.ts';
import {
  createSshServerConfig,
  randomPassword,
  createServerClient,
  type ServerClient,
} from '../support/servers.ts';

const HOST_KEY = { type: 'ssh-ed25519', fingerprint: `SHA256:${'a'.repeat(43)}` };

let app: TestApp;
let direct: DirectServers;
let ada: ServerClient;

beforeAll(async () => {
  app = await startApp();
  direct = await openServers(app);
});
beforeEach(async () => {
  ada = await createServerClient(app);
});
afterAll(async () => {
  await direct.close();
  await app.stop();
});

/** Adds servers of which each connects through the previous one; the first connects directly. */
async function chain(length: number): Promise<string[]> {
  const ids: string[] = [];
  for (let n = 0; n < length; n += 1) {
    const config = createSshServerConfig({ jump: ids.at(-1) ?? null });
    const { id } = await ada.add({ name: `server ${n}`, connection_config: config });
    await ada.confirm(id, HOST_KEY);
    ids.push(id);
  }
  return ids;
}

describe('a jump server', () => {
  it('is opened together with the server that connects through it, up to three in a chain', async () => {
    const ids = await chain(4);
    const { target } = await direct.openForRun(ada.user.id, ids[3] ?? '');
    const depths = [];
    for (let each = target; ;) {
      depths.push(each.serverId);
      expect(each.owner).toBe(`user:${ada.user.id}`);
      const [next] = each.jumpServers.values();
      if (next === undefined) break;
      each = next;
    }
    expect(depths).toEqual(ids.reverse());
  });

  it('must be an active SSH server of the same user; others are refused with the name of the member', async () => {
    const bob = await createServerClient(app);
    const foreign = await bob.add({ connection_config: createSshServerConfig() });
    const paused = await ada.add({ connection_config: createSshServerConfig(), is_active: false });
    for (const jump of [foreign.id, paused.id, '7c9e6679-7425-40de-944b-e07fc1f90ae7', 'x', "' OR 1=1"]) {
      const refused = await ada.expectRefusal('POST', '', {
        ...{ name: 'x', server_type: 'ssh' },
        connection_config: createSshServerConfig({ jump }),
      });
      expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
      expect(refused.errors?.[0]?.path).toBe('connection_config.jump');
      const unsaved = { server_type: 'ssh', connection_config: createSshServerConfig({ jump }) };
      expect(await ada.expectRefusal('POST', '/test', unsaved)).toMatchObject({
        status: 400,
        errors: [{ path: 'connection_config.jump' }],
      });
    }
    expect(await ada.list()).toHaveLength(1);
  });

  it('of another user is not used, even if the database was edited by hand', async () => {
    const bob = await createServerClient(app);
    const foreign = await bob.add({ connection_config: createSshServerConfig() });
    const [first = '', second = ''] = await chain(2);
    // The whole row changes its owner, so that only the lookup of the jump server prevents its use.
    await direct.sql('UPDATE user_execution_servers SET user_id = $2, is_default = false WHERE id = $1', [
      first,
      bob.user.id,
    ]);
    await expect(direct.openForRun(ada.user.id, second)).rejects.toMatchObject({
      code: 'not_found',
      detail: 'The SSH server that this server connects through was not found.',
    });
    await expect(direct.openForRun(ada.user.id, foreign.id)).rejects.toMatchObject({
      code: 'not_found',
    });
  });

  it('must not be the fourth of a chain, wherever it is inserted', async () => {
    const [first = '', , , last] = await chain(4);
    const input = { name: 'x', server_type: 'ssh', connection_config: createSshServerConfig({ jump: last }) };
    const refused = await ada.expectRefusal('POST', '', input);
    expect(refused.errors?.[0]).toMatchObject({
      path: 'connection_config.jump',
      message: expect.stringMatching(/more than 3/),
    });
    const zeroth = await ada.add({ name: 'zeroth', connection_config: createSshServerConfig() });
    const behind = { connection_config: createSshServerConfig({ jump: zeroth.id }) };
    expect((await ada.expectRefusal('PUT', `/${first}`, behind)).errors?.[0]).toMatchObject({
      path: 'connection_config.jump',
      message: 'gives “server 3” more than 3 jump servers, or a circle of them',
    });
  });

  it('must not be part of a circle, and a server must not connect through itself', async () => {
    const [first = '', second = ''] = await chain(2);
    for (const jump of [first, second])
      expect(
        (await ada.expectRefusal('PUT', `/${first}`, { connection_config: createSshServerConfig({ jump }) }))
          .errors?.[0],
      ).toMatchObject({ path: 'connection_config.jump', message: expect.stringMatching(/circle/) });
  });

  it('in a circle that was stored by hand leads to an error', async () => {
    const [first = '', second = ''] = await chain(2);
    // Bypasses the check of changes: a valid ciphertext, with a jump server that makes a circle.
    const config = await encryptedWithJump(first, second);
    await direct.sql('UPDATE user_execution_servers SET connection_config = $2 WHERE id = $1', [
      first,
      JSON.stringify(config),
    ]);
    await expect(direct.openForRun(ada.user.id, second)).rejects.toMatchObject({
      code: 'validation_failed',
      detail: 'A server may have at most 3 jump servers, and no circle of them.',
    });
    expect((await ada.test(second)).status).toBe('error');
  });

  it('that is paused or unconfirmed blocks the servers that connect through it, with its name', async () => {
    const [first = '', second = ''] = await chain(2);
    await ada.change(first, { is_active: false });
    await expect(direct.openForRun(ada.user.id, second)).rejects.toMatchObject({
      code: 'server_paused',
      detail: 'This server connects through “server 0”, which is paused. Switch that one on first.',
    });
    // Members that are unrelated to the jump chain can still be changed.
    await ada.change(second, { name: 'renamed', workspace_path: '/w' });
    await ada.change(first, { is_active: true });
    const config = { host: 'other.example.test', password: randomPassword() };
    await ada.change(first, { connection_config: config });
    await expect(direct.openForRun(ada.user.id, second)).rejects.toMatchObject({
      code: 'host_key_unconfirmed',
      extra: { server_id: first },
    });
  });

  it('can be deleted: the response names the servers that connect through it, and these fail with a message', async () => {
    const [first = '', second = ''] = await chain(3);
    expect(await ada.remove(first)).toEqual({
      message:
        '“server 0” deleted. It was the default. You have no default server until you choose one. ' +
        'These servers connect through it and fail until you change their connection_config: “server 1”, “server 2”.',
      default_server_id: null,
    });
    await expect(direct.openForRun(ada.user.id, second)).rejects.toMatchObject({
      status: 404,
      detail: 'The SSH server that this server connects through was not found.',
    });
    expect(await ada.test(second)).toMatchObject({
      status: 'error',
      message: 'The SSH server that this server connects through was not found.',
    });
    expect(await ada.get(second)).toMatchObject({ test_status: 'error' });
  });
});

/** The configuration that the app would store for a server with another jump server. */
async function encryptedWithJump(id: string, jump: string): Promise<Record<string, unknown>> {
  const like = await ada.add({ name: 'like it', connection_config: createSshServerConfig({ jump }) });
  await ada.confirm(like.id, HOST_KEY);
  const config = await direct.storedConfig(like.id);
  const plaintext = JSON.parse(direct.keyring.decrypt(String(config['password'])) ?? 'null') as object;
  await ada.remove(like.id);
  return { ...config, password: direct.keyring.encrypt(JSON.stringify({ ...plaintext, server: id })) };
}
