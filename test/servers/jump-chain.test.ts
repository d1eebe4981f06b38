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

/** Servers that each go through the one before; the first goes through none. */
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
  it('is opened with the one that goes through it, up to three deep', async () => {
    const ids = await chain(4);
    const { target } = await direct.service.openForUse(ada.user.id, ids[3] ?? '');
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

  it('must be an own, active SSH server: anything else is refused by the name of the member', async () => {
    const bob = await createServerClient(app);
    const theirs = await bob.add({ connection_config: createSshServerConfig() });
    const paused = await ada.add({ connection_config: createSshServerConfig(), is_active: false });
    for (const jump of [theirs.id, paused.id, '7c9e6679-7425-40de-944b-e07fc1f90ae7', 'x', "' OR 1=1"]) {
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

  it('of somebody else is of no use even where it was written into the database by hand', async () => {
    const bob = await createServerClient(app);
    const theirs = await bob.add({ connection_config: createSshServerConfig() });
    const [first = '', second = ''] = await chain(2);
    // Whole rows change hands, so that only the look-up of the reference stands in the way.
    await direct.sql('UPDATE user_execution_servers SET user_id = $2, is_default = false WHERE id = $1', [
      first,
      bob.user.id,
    ]);
    await expect(direct.service.openForUse(ada.user.id, second)).rejects.toMatchObject({
      code: 'not_found',
      detail: 'The SSH server that this one goes through was not found.',
    });
    await expect(direct.service.openForUse(ada.user.id, theirs.id)).rejects.toMatchObject({
      code: 'not_found',
    });
  });

  it('may not be the fourth, wherever in the chain it is put', async () => {
    const [first = '', , , last] = await chain(4);
    const wish = { name: 'x', server_type: 'ssh', connection_config: createSshServerConfig({ jump: last }) };
    const refused = await ada.expectRefusal('POST', '', wish);
    expect(refused.errors?.[0]).toMatchObject({
      path: 'connection_config.jump',
      message: expect.stringMatching(/more than 3/),
    });
    const zeroth = await ada.add({ name: 'zeroth', connection_config: createSshServerConfig() });
    const behind = { connection_config: createSshServerConfig({ jump: zeroth.id }) };
    expect((await ada.expectRefusal('PUT', `/${first}`, behind)).errors?.[0]).toMatchObject({
      path: 'connection_config.jump',
      message: 'makes “server 3” go through more than 3 servers, or in a circle',
    });
  });

  it('may not go in a circle, not even through itself', async () => {
    const [first = '', second = ''] = await chain(2);
    for (const jump of [first, second])
      expect(
        (await ada.expectRefusal('PUT', `/${first}`, { connection_config: createSshServerConfig({ jump }) }))
          .errors?.[0],
      ).toMatchObject({ path: 'connection_config.jump', message: expect.stringMatching(/circle/) });
  });

  it('in a circle that was made by hand ends in words', async () => {
    const [first = '', second = ''] = await chain(2);
    // As if the check of the change were gone: sealed in good form, for a jump that leads back.
    const config = await sealedThrough(first, second);
    await direct.sql('UPDATE user_execution_servers SET connection_config = $2 WHERE id = $1', [
      first,
      JSON.stringify(config),
    ]);
    await expect(direct.service.openForUse(ada.user.id, second)).rejects.toMatchObject({
      code: 'validation_failed',
      detail: 'A server may go through at most 3 others, and not in a circle.',
    });
    expect((await ada.test(second)).status).toBe('error');
  });

  it('that is paused or unconfirmed stops those that go through it, by name', async () => {
    const [first = '', second = ''] = await chain(2);
    await ada.change(first, { is_active: false });
    await expect(direct.service.openForUse(ada.user.id, second)).rejects.toMatchObject({
      code: 'server_paused',
      detail: 'This server goes through “server 0”, which is paused.',
    });
    // What has nothing to do with the way can still be changed.
    await ada.change(second, { name: 'renamed', workspace_path: '/w' });
    await ada.change(first, { is_active: true });
    const config = { host: 'other.example.test', password: randomPassword() };
    await ada.change(first, { connection_config: config });
    await expect(direct.service.openForUse(ada.user.id, second)).rejects.toMatchObject({
      code: 'host_key_unconfirmed',
      extra: { server_id: first },
    });
  });

  it('can be deleted: the answer names those that go through it, and their next use says what is missing', async () => {
    const [first = '', second = ''] = await chain(3);
    expect(await ada.remove(first)).toEqual({
      message:
        '“server 0” deleted. It was the default: there is none now until you choose another. ' +
        'What goes through it does not work until you change its connection_config: “server 1”, “server 2”.',
      default_server_id: null,
    });
    await expect(direct.service.openForUse(ada.user.id, second)).rejects.toMatchObject({
      status: 404,
      detail: 'The SSH server that this one goes through was not found.',
    });
    expect(await ada.test(second)).toMatchObject({
      status: 'error',
      message: 'The SSH server that this one goes through was not found.',
    });
    expect(await ada.get(second)).toMatchObject({ test_status: 'error' });
  });
});

/** What would be stored of a server with another jump: sealed as the product seals it. */
async function sealedThrough(id: string, jump: string): Promise<Record<string, unknown>> {
  const like = await ada.add({ name: 'like it', connection_config: createSshServerConfig({ jump }) });
  await ada.confirm(like.id, HOST_KEY);
  const config = await direct.storedConfig(like.id);
  const sealed = JSON.parse(direct.keyring.decrypt(String(config['password'])) ?? 'null') as object;
  await ada.remove(like.id);
  return { ...config, password: direct.keyring.encrypt(JSON.stringify({ ...sealed, server: id })) };
}
