import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { generateSshKeyPair } from '../../src/lib/ssh/private-key.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { certificate } from '../support/certificate.ts';
import { registerPrivateKey } from '../support/hosts.ts';
import { listeningHost } from '../support/listening-host.ts';
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

beforeAll(async () => {
  app = await startApp();
  direct = await openServers(app);
  ada = await createServerClient(app);
});
afterAll(async () => {
  await direct.close();
  await app.stop();
});

function randomKey(): string {
  const { privateKey } = generateSshKeyPair();
  registerPrivateKey(privateKey);
  return privateKey;
}

/** What is sealed in one member of a stored configuration. */
async function sealedIn(id: string, field: string): Promise<Record<string, unknown>> {
  const token = (await direct.storedConfig(id))[field];
  return JSON.parse(direct.keyring.decrypt(String(token)) ?? 'null') as Record<string, unknown>;
}

const setConfig = (id: string, change: object) =>
  direct.sql(
    'UPDATE user_execution_servers SET connection_config = connection_config || $2::jsonb WHERE id = $1',
    [id, JSON.stringify(change)],
  );
const open = (id: string) => direct.service.openForUse(ada.user.id, id);

describe('a stored secret', () => {
  it('is sealed with its owner, server, field and destination', async () => {
    const password = randomPassword();
    const { id } = await ada.add({ connection_config: createSshServerConfig({ password }) });
    expect(await sealedIn(id, 'password')).toEqual({
      v: 1,
      kind: 'server_secret',
      owner: `user:${ada.user.id}`,
      server: id,
      field: 'password',
      destination: expect.stringMatching(/^[0-9a-f]{64}$/),
      value: password,
    });
    await ada.remove(id);
  });

  it('stays where it is missing or sent back as its mask, and goes where it is null', async () => {
    const [password, key] = [randomPassword(), randomKey()];
    const { id } = await ada.add({
      connection_config: createSshServerConfig({ password, private_key: key }),
    });
    await ada.change(id, { connection_config: { auth_method: 'key' } });
    const whole = (await ada.get(id)).connection_config;
    expect(whole).toMatchObject({ auth_method: 'key', password: STORED, private_key: STORED });
    await ada.change(id, { connection_config: whole });
    expect([(await sealedIn(id, 'password'))['value'], (await sealedIn(id, 'private_key'))['value']]).toEqual(
      [password, key],
    );
    const back = { auth_method: 'password', private_key: null };
    const cleared = await ada.change(id, { connection_config: back });
    expect(cleared.connection_config).toMatchObject({ password: STORED, private_key: null });
    expect((await direct.storedConfig(id))['private_key']).toBeNull();
    const replaced = randomPassword();
    await ada.change(id, { connection_config: { password: replaced } });
    expect((await sealedIn(id, 'password'))['value']).toBe(replaced);
    await ada.remove(id);
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['a mask where nothing is stored', { private_key: STORED }, 'private_key'],
    ['a mask in the place of something that is no secret', { username: STORED }, 'username'],
    ['a mask inside something', { host: { a: [STORED] } }, 'host'],
    ['no secret where one is due', { password: null }, 'password'],
  ])('a change with %s is refused, and changes nothing', async (_name, change, field) => {
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    const before = await direct.storedConfig(id);
    const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: change });
    expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
    expect(refused.errors?.map(({ path }) => path)).toContain(`connection_config.${field}`);
    expect(await direct.storedConfig(id)).toEqual(before);
    await ada.remove(id);
  });
});

describe('another address', () => {
  it.each([{ host: 'elsewhere.example.test' }, { port: 2022 }, { username: 'root' }, { jump: 'set' }])(
    'needs every secret again, and the host key to be confirmed again: %j',
    async (change) => {
      const jump = await ada.add({ name: 'jump', connection_config: createSshServerConfig() });
      const wish = 'jump' in change ? { jump: jump.id } : change;
      const config = createSshServerConfig({ password: randomPassword(), private_key: randomKey() });
      const { id } = await ada.add({ connection_config: config });
      await ada.confirm(id, HOST_KEY);
      for (const own of [{}, { password: STORED, private_key: STORED }]) {
        const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: { ...wish, ...own } });
        expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
        expect(refused.errors?.map(({ path }) => path)).toEqual([
          'connection_config.password',
          'connection_config.private_key',
        ]);
        expect(refused.errors?.[0]?.message).toMatch(/sent again/);
      }
      const half = { ...wish, password: randomPassword() };
      expect((await ada.expectRefusal('PUT', `/${id}`, { connection_config: half })).errors).toHaveLength(1);
      expect(await ada.get(id)).toMatchObject({ version: 2, host_key: HOST_KEY });
      const password = randomPassword();
      const changed = await ada.change(id, { connection_config: { ...wish, password, private_key: null } });
      expect(changed).toMatchObject({ version: 3, host_key: null, connection_config: wish });
      expect((await sealedIn(id, 'password'))['value']).toBe(password);
      await ada.remove(id);
      await ada.remove(jump.id);
    },
  );

  it('is none where only the way to prove who one is changes', async () => {
    const config = createSshServerConfig({ private_key: randomKey() });
    const { id } = await ada.add({ connection_config: config });
    await ada.confirm(id, HOST_KEY);
    const changed = await ada.change(id, { connection_config: { auth_method: 'key' } });
    expect(changed.host_key).toEqual(HOST_KEY);
    expect((await open(id)).target).toMatchObject({ hostKey: HOST_KEY, config: { auth_method: 'key' } });
    await ada.remove(id);
  });
});

describe('the environment of a Docker server', () => {
  const { cert: client_cert, key: client_key } = certificate;
  const address = { host: 'tcp://docker.example.test:2376', client_cert, client_key };
  const elsewhere = [{ image: 'other:1' }, { volumes: [{ source: 'data', target: '/data' }] }];
  const addDocker = (change: object = {}) =>
    ada.add({ server_type: 'docker', connection_config: { ...address, ...change } });

  it.each(elsewhere)('is needed again, and it alone, with another content: %j', async (change) => {
    const { id } = await addDocker({ environment: { TOKEN: randomPassword() } });
    const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: change });
    expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
    expect(refused.errors?.map(({ path }) => path)).toEqual(['connection_config.environment']);
    const environment = { TOKEN: randomPassword() };
    await ada.change(id, { connection_config: { ...change, environment } });
    expect((await open(id)).target.config).toMatchObject({ ...address, ...change, environment });
    await ada.remove(id);
  });

  it.each(elsewhere)('does not open where the row was given another content: %j', async (change) => {
    const { id } = await addDocker({ environment: { TOKEN: randomPassword() } });
    await setConfig(id, change);
    await expect(open(id)).rejects.toMatchObject({ code: 'key_undecryptable', status: 424 });
    await ada.remove(id);
  });

  it('can be added, changed and cleared, and the content without one, while the key stays', async () => {
    const { id } = await addDocker();
    const environment = { TOKEN: randomPassword() };
    for (const change of [
      { image: 'other:2' },
      { environment },
      { environment: { A: 'b' } },
      { environment: null },
    ]) {
      await ada.change(id, { connection_config: change });
      expect((await open(id)).target.config).toMatchObject({ ...address, ...change });
    }
    await ada.remove(id);
  });
});

describe('a row that was changed by hand in the database', () => {
  it('never gets its secret sent to the address that stands there now', async () => {
    await using listener = await listeningHost();
    const { host, port } = listener;
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    await ada.confirm(id, HOST_KEY);
    await setConfig(id, { host, port });
    expect((await ada.get(id)).connection_config).toMatchObject({ host, port, password: STORED });
    await expect(open(id)).rejects.toMatchObject({ code: 'key_undecryptable', status: 424 });
    expect(await ada.test(id)).toMatchObject({
      status: 'error',
      message: expect.stringMatching(/do not open, or were stored for another address/),
      details: { stages: [], host_key: null },
    });
    expect(listener.connections()).toBe(0);
    await ada.remove(id);
  });

  it.each<[string, (id: string, other: string) => Promise<unknown>]>([
    ['another port', (id) => setConfig(id, { port: 2022 })],
    ['another account', (id) => setConfig(id, { username: 'root' })],
    ['another jump server', (id, other) => setConfig(id, { jump: other })],
    ["another server's token", async (id, other) => setConfig(id, await direct.storedConfig(other))],
    [
      'the tokens of two fields exchanged',
      async (id) => {
        const { password, passphrase } = await direct.storedConfig(id);
        return setConfig(id, { password: passphrase, passphrase: password });
      },
    ],
    ['a secret in the clear', (id) => setConfig(id, { password: 'plain' })],
    ['a damaged token', (id) => setConfig(id, { password: 'gAAAAABmAAAA' })],
    ['a member that is none', (id) => setConfig(id, { proxy: 'x' })],
    [
      'another host key',
      (id) =>
        direct.sql(
          `UPDATE user_execution_servers SET host_key = '{"type": "ssh-rsa", "fingerprint": "SHA256:x"}'
           WHERE id = $1`,
          [id],
        ),
    ],
    [
      'no host key',
      (id) => direct.sql('UPDATE user_execution_servers SET host_key = NULL WHERE id = $1', [id]),
    ],
    [
      'a host key that is none',
      (id) => direct.sql(`UPDATE user_execution_servers SET host_key = '"x"' WHERE id = $1`, [id]),
    ],
  ])('does not open: %s', async (_name, alter) => {
    const config = createSshServerConfig({ private_key: randomKey(), passphrase: randomPassword() });
    const { id } = await ada.add({ connection_config: config });
    // Alike but for its id and its password: what else is compared would not tell the two apart.
    const other = await ada.add({ connection_config: { ...config, password: randomPassword() } });
    for (const each of [id, other.id]) await ada.confirm(each, HOST_KEY);
    expect((await open(id)).target.config).toMatchObject(config);
    await alter(id, other.id);
    await expect(open(id)).rejects.toMatchObject({ code: 'key_undecryptable', status: 424 });
    await ada.remove(id);
    await ada.remove(other.id);
  });

  it("does not open with another person's secrets", async () => {
    const bob = await createServerClient(app);
    const config = createSshServerConfig();
    const [mine, theirs] = [
      await ada.add({ connection_config: config }),
      await bob.add({ connection_config: config }),
    ];
    await ada.confirm(mine.id, HOST_KEY);
    await bob.confirm(theirs.id, HOST_KEY);
    await setConfig(mine.id, await direct.storedConfig(theirs.id));
    await expect(open(mine.id)).rejects.toMatchObject({ code: 'key_undecryptable' });
    await direct.sql('UPDATE user_execution_servers SET user_id = $2, is_default = false WHERE id = $1', [
      theirs.id,
      ada.user.id,
    ]);
    await expect(open(theirs.id)).rejects.toMatchObject({ code: 'key_undecryptable' });
    await ada.remove(mine.id);
    await ada.remove(theirs.id);
  });

  it('takes a secret again only with the whole address, so that none is entered for an altered one', async () => {
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    await ada.confirm(id, HOST_KEY);
    await setConfig(id, { host: 'evil.example.test' });
    const password = randomPassword();
    for (const change of [{ password }, { username: 'x' }, createSshServerConfig({ password: STORED })])
      expect(await ada.expectRefusal('PUT', `/${id}`, { connection_config: change })).toMatchObject({
        status: 424,
        code: 'key_undecryptable',
      });
    expect(await ada.expectRefusal('POST', `/${id}/host-key`, HOST_KEY)).toMatchObject({
      code: 'key_undecryptable',
    });
    // What has nothing to do with secrets can still be changed.
    expect(await ada.change(id, { name: 'renamed' })).toMatchObject({ name: 'renamed' });
    const mended = await ada.change(id, { connection_config: createSshServerConfig({ password }) });
    expect(mended).toMatchObject({ host_key: null, connection_config: { host: 'dev.example.test' } });
    expect((await sealedIn(id, 'password'))['value']).toBe(password);
    await ada.remove(id);
  });
});

describe('confirming a host key', () => {
  it('stores exactly what was sent, seals anew, and raises the version once', async () => {
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    await expect(open(id)).rejects.toMatchObject({ code: 'host_key_unconfirmed', status: 409 });
    const before = (await sealedIn(id, 'password'))['destination'];
    expect(await ada.confirm(id, HOST_KEY)).toMatchObject({ version: 2, host_key: HOST_KEY });
    expect((await sealedIn(id, 'password'))['destination']).not.toBe(before);
    expect(await ada.confirm(id, HOST_KEY)).toMatchObject({ version: 2 });
    expect((await open(id)).target.hostKey).toEqual(HOST_KEY);
    await ada.remove(id);
  });

  it.each<[string, object, string]>([
    ['no type', { fingerprint: HOST_KEY.fingerprint }, 'type'],
    ['a type with a blank', { ...HOST_KEY, type: 'ssh ed25519' }, 'type'],
    ['an MD5 fingerprint', { ...HOST_KEY, fingerprint: 'MD5:00:11' }, 'fingerprint'],
    ['a fingerprint that is cut', { ...HOST_KEY, fingerprint: `SHA256:${'a'.repeat(42)}` }, 'fingerprint'],
    ['a hop that is not on the way', { ...HOST_KEY, hop: 'somewhere' }, 'hop'],
    ['an unknown member', { ...HOST_KEY, trust: true }, 'body'],
  ])('refuses %s', async (_name, body, field) => {
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    const refused = await ada.expectRefusal('POST', `/${id}/host-key`, body);
    expect(refused).toMatchObject({ status: 400, errors: [{ path: field }] });
    expect((await ada.get(id)).host_key).toBeNull();
    await ada.remove(id);
  });

  it('stores the key of a hop on the server that it belongs to', async () => {
    const jump = await ada.add({ name: 'jump', connection_config: createSshServerConfig() });
    const inner = await ada.add({ connection_config: createSshServerConfig({ jump: jump.id }) });
    const answered = await ada.confirm(inner.id, { ...HOST_KEY, hop: jump.id });
    expect(answered).toMatchObject({ id: jump.id, host_key: HOST_KEY, version: 2 });
    expect(await ada.get(inner.id)).toMatchObject({ host_key: null, version: 1 });
    await ada.remove(inner.id);
    await ada.remove(jump.id);
  });
});
