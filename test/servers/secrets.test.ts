import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { generateSshKeyPair } from '../../src/lib/ssh/private-key.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { certificate } from '../support/certificate.ts';
import { registerPrivateKey } from '../support/hosts.ts';
import { createLockedKey } from '../support/locked-key.ts';
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

/** The plaintext of one member of a stored configuration. */
async function readPlaintext(id: string, field: string): Promise<Record<string, unknown>> {
  const token = (await direct.storedConfig(id))[field];
  return JSON.parse(direct.keyring.decrypt(String(token)) ?? 'null') as Record<string, unknown>;
}

const setConfig = (id: string, change: object) =>
  direct.sql(
    'UPDATE user_execution_servers SET connection_config = connection_config || $2::jsonb WHERE id = $1',
    [id, JSON.stringify(change)],
  );
const open = (id: string) => direct.openForRun(ada.user.id, id);

describe('a stored secret', () => {
  it('is encrypted together with its owner, server, field and destination', async () => {
    const password = randomPassword();
    const { id } = await ada.add({ connection_config: createSshServerConfig({ password }) });
    expect(await readPlaintext(id, 'password')).toEqual({
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

  it('stays when it is missing or sent back as its mask, and is cleared by null', async () => {
    const [password, key] = [randomPassword(), randomKey()];
    const { id } = await ada.add({
      connection_config: createSshServerConfig({ password, private_key: key }),
    });
    await ada.change(id, { connection_config: { auth_method: 'key' } });
    const whole = (await ada.get(id)).connection_config;
    expect(whole).toMatchObject({ auth_method: 'key', password: STORED, private_key: STORED });
    await ada.change(id, { connection_config: whole });
    expect([
      (await readPlaintext(id, 'password'))['value'],
      (await readPlaintext(id, 'private_key'))['value'],
    ]).toEqual([password, key]);
    const back = { auth_method: 'password', private_key: null };
    const cleared = await ada.change(id, { connection_config: back });
    expect(cleared.connection_config).toMatchObject({ password: STORED, private_key: null });
    expect((await direct.storedConfig(id))['private_key']).toBeNull();
    const replaced = randomPassword();
    await ada.change(id, { connection_config: { password: replaced } });
    expect((await readPlaintext(id, 'password'))['value']).toBe(replaced);
    await ada.remove(id);
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['a mask for a secret that is not stored', { private_key: STORED }, 'private_key'],
    ['a mask for a member that is no secret', { username: STORED }, 'username'],
    ['a mask inside another value', { host: { a: [STORED] } }, 'host'],
    ['no value for a required secret', { password: null }, 'password'],
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

describe('a change of the address', () => {
  it.each([{ host: 'other.example.test' }, { port: 2022 }, { username: 'root' }, { jump: 'set' }])(
    'requires every secret again, and a new confirmation of the host key: %j',
    async (change) => {
      const jump = await ada.add({ name: 'jump', connection_config: createSshServerConfig() });
      const other = 'jump' in change ? { jump: jump.id } : change;
      const config = createSshServerConfig({ password: randomPassword(), private_key: randomKey() });
      const { id } = await ada.add({ connection_config: config });
      await ada.confirm(id, HOST_KEY);
      for (const own of [{}, { password: STORED, private_key: STORED }]) {
        const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: { ...other, ...own } });
        expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
        expect(refused.errors?.map(({ path }) => path)).toEqual([
          'connection_config.password',
          'connection_config.private_key',
        ]);
        expect(refused.errors?.[0]?.message).toMatch(/sent again/);
      }
      const half = { ...other, password: randomPassword() };
      expect((await ada.expectRefusal('PUT', `/${id}`, { connection_config: half })).errors).toHaveLength(1);
      expect(await ada.get(id)).toMatchObject({ version: 2, host_key: HOST_KEY });
      const password = randomPassword();
      const changed = await ada.change(id, { connection_config: { ...other, password, private_key: null } });
      expect(changed).toMatchObject({ version: 3, host_key: null, connection_config: other });
      expect((await readPlaintext(id, 'password'))['value']).toBe(password);
      await ada.remove(id);
      await ada.remove(jump.id);
    },
  );

  it('does not include a change of the auth method', async () => {
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
  const otherDestinations = [{ image: 'other:1' }, { volumes: [{ source: 'data', target: '/data' }] }];
  const addDocker = (change: object = {}) =>
    ada.add({ server_type: 'docker', connection_config: { ...address, ...change } });

  it.each(otherDestinations)(
    'must be sent again, and it alone, when other members change: %j',
    async (change) => {
      const { id } = await addDocker({ environment: { TOKEN: randomPassword() } });
      const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: change });
      expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
      expect(refused.errors?.map(({ path }) => path)).toEqual(['connection_config.environment']);
      const environment = { TOKEN: randomPassword() };
      await ada.change(id, { connection_config: { ...change, environment } });
      expect((await open(id)).target.config).toMatchObject({ ...address, ...change, environment });
      await ada.remove(id);
    },
  );

  it.each(otherDestinations)(
    'does not decrypt when other members of the row were edited: %j',
    async (change) => {
      const { id } = await addDocker({ environment: { TOKEN: randomPassword() } });
      await setConfig(id, change);
      await expect(open(id)).rejects.toMatchObject({ code: 'key_undecryptable', status: 424 });
      await ada.remove(id);
    },
  );

  it('can be added, changed and cleared while the client key stays; without it other members can change', async () => {
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

/** Members that the programs on a server receive. */
const RECEIVED = [
  ['environment', () => ({ TOKEN: randomPassword() })],
  ['setup', () => `export TOKEN=${randomPassword()}`],
] as const;

describe.each(RECEIVED)('the %s of an SSH server', (member, createValue) => {
  const interpreters = { python: '/opt/other/python3', javascript: null, bash: null };
  async function addSsh(change: Record<string, unknown> = {}): Promise<string> {
    const { id } = await ada.add({ connection_config: createSshServerConfig(change) });
    await ada.confirm(id, HOST_KEY);
    return id;
  }

  it('must be sent again, and it alone, when the programs that receive it change; the host key stays', async () => {
    const id = await addSsh({ [member]: createValue() });
    const refused = await ada.expectRefusal('PUT', `/${id}`, { connection_config: { interpreters } });
    expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
    expect(refused.errors?.map(({ path }) => path)).toEqual([`connection_config.${member}`]);
    const value = createValue();
    const changed = await ada.change(id, { connection_config: { interpreters, [member]: value } });
    expect(changed).toMatchObject({ host_key: HOST_KEY, connection_config: { [member]: STORED } });
    expect((await open(id)).target.config).toMatchObject({ interpreters, [member]: value });
    await ada.remove(id);
  });

  it('does not decrypt when the programs in the row were edited', async () => {
    const id = await addSsh({ [member]: createValue() });
    await setConfig(id, { interpreters });
    await expect(open(id)).rejects.toMatchObject({ code: 'key_undecryptable', status: 424 });
    await ada.remove(id);
  });

  it('can be added, changed and cleared while password and host key stay; without it programs can change', async () => {
    const id = await addSsh();
    for (const change of [
      { interpreters },
      { [member]: createValue() },
      { [member]: createValue() },
      { [member]: null },
      { interpreters: null },
    ]) {
      await ada.change(id, { connection_config: change });
      expect((await open(id)).target).toMatchObject({ hostKey: HOST_KEY, config: change });
    }
    await ada.remove(id);
  });
});

describe('a row that was edited by hand in the database', () => {
  it('does not send its secret to the edited address', async () => {
    await using listener = await listeningHost();
    const { host, port } = listener;
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    await ada.confirm(id, HOST_KEY);
    await setConfig(id, { host, port });
    expect((await ada.get(id)).connection_config).toMatchObject({ host, port, password: STORED });
    await expect(open(id)).rejects.toMatchObject({ code: 'key_undecryptable', status: 424 });
    expect(await ada.test(id)).toMatchObject({
      status: 'error',
      message: expect.stringMatching(/do not decrypt, or were stored for another address/),
      details: { stages: [], host_key: null },
    });
    expect(listener.connections()).toBe(0);
    await ada.remove(id);
  });

  it.each<[string, (id: string, other: string) => Promise<unknown>]>([
    ['another port', (id) => setConfig(id, { port: 2022 })],
    ['another account', (id) => setConfig(id, { username: 'root' })],
    ['another jump server', (id, other) => setConfig(id, { jump: other })],
    ["another server's ciphertext", async (id, other) => setConfig(id, await direct.storedConfig(other))],
    [
      'the ciphertexts of two fields exchanged',
      async (id) => {
        const { password, passphrase } = await direct.storedConfig(id);
        return setConfig(id, { password: passphrase, passphrase: password });
      },
    ],
    ['a secret in the clear', (id) => setConfig(id, { password: 'plain' })],
    ['a damaged ciphertext', (id) => setConfig(id, { password: 'gAAAAABmAAAA' })],
    ['an unknown member', (id) => setConfig(id, { proxy: 'x' })],
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
      'an invalid host key',
      (id) => direct.sql(`UPDATE user_execution_servers SET host_key = '"x"' WHERE id = $1`, [id]),
    ],
  ])('does not decrypt: %s', async (_name, alter) => {
    const config = createSshServerConfig({ private_key: randomKey(), passphrase: randomPassword() });
    const { id } = await ada.add({ connection_config: config });
    // Differs only in its id and its password, so that no other comparison distinguishes the two.
    const other = await ada.add({ connection_config: { ...config, password: randomPassword() } });
    for (const each of [id, other.id]) await ada.confirm(each, HOST_KEY);
    expect((await open(id)).target.config).toMatchObject(config);
    await alter(id, other.id);
    await expect(open(id)).rejects.toMatchObject({ code: 'key_undecryptable', status: 424 });
    await ada.remove(id);
    await ada.remove(other.id);
  });

  it("does not decrypt with another user's secrets", async () => {
    const bob = await createServerClient(app);
    const config = createSshServerConfig();
    const [own, foreign] = [
      await ada.add({ connection_config: config }),
      await bob.add({ connection_config: config }),
    ];
    await ada.confirm(own.id, HOST_KEY);
    await bob.confirm(foreign.id, HOST_KEY);
    await setConfig(own.id, await direct.storedConfig(foreign.id));
    await expect(open(own.id)).rejects.toMatchObject({ code: 'key_undecryptable' });
    await direct.sql('UPDATE user_execution_servers SET user_id = $2, is_default = false WHERE id = $1', [
      foreign.id,
      ada.user.id,
    ]);
    await expect(open(foreign.id)).rejects.toMatchObject({ code: 'key_undecryptable' });
    await ada.remove(own.id);
    await ada.remove(foreign.id);
  });

  it('accepts a new secret only with the whole address, so that none is entered for an altered one', async () => {
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
    // Members that are unrelated to secrets can still be changed.
    expect(await ada.change(id, { name: 'renamed' })).toMatchObject({ name: 'renamed' });
    const mended = await ada.change(id, { connection_config: createSshServerConfig({ password }) });
    expect(mended).toMatchObject({ host_key: null, connection_config: { host: 'dev.example.test' } });
    expect((await readPlaintext(id, 'password'))['value']).toBe(password);
    await ada.remove(id);
  });
});

describe('confirming a host key', () => {
  it('stores exactly the sent key, encrypts the secrets again and raises the version once', async () => {
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    await expect(open(id)).rejects.toMatchObject({ code: 'host_key_unconfirmed', status: 409 });
    const before = (await readPlaintext(id, 'password'))['destination'];
    expect(await ada.confirm(id, HOST_KEY)).toMatchObject({ version: 2, host_key: HOST_KEY });
    expect((await readPlaintext(id, 'password'))['destination']).not.toBe(before);
    expect(await ada.confirm(id, HOST_KEY)).toMatchObject({ version: 2 });
    expect((await open(id)).target.hostKey).toEqual(HOST_KEY);
    await ada.remove(id);
  });

  it.each<[string, object, string]>([
    ['no type', { fingerprint: HOST_KEY.fingerprint }, 'type'],
    ['a type with a space', { ...HOST_KEY, type: 'ssh ed25519' }, 'type'],
    ['an MD5 fingerprint', { ...HOST_KEY, fingerprint: 'MD5:00:11' }, 'fingerprint'],
    ['a truncated fingerprint', { ...HOST_KEY, fingerprint: `SHA256:${'a'.repeat(42)}` }, 'fingerprint'],
    ['a hop that is not in the jump chain', { ...HOST_KEY, hop: 'x' }, 'hop'],
    ['an unknown member', { ...HOST_KEY, trust: true }, 'body'],
  ])('refuses %s', async (_name, body, field) => {
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    const refused = await ada.expectRefusal('POST', `/${id}/host-key`, body);
    expect(refused).toMatchObject({ status: 400, errors: [{ path: field }] });
    expect((await ada.get(id)).host_key).toBeNull();
    await ada.remove(id);
  });

  it('stores the key of a jump server on that server', async () => {
    const jump = await ada.add({ name: 'jump', connection_config: createSshServerConfig() });
    const inner = await ada.add({ connection_config: createSshServerConfig({ jump: jump.id }) });
    const answered = await ada.confirm(inner.id, { ...HOST_KEY, hop: jump.id });
    expect(answered).toMatchObject({ id: jump.id, host_key: HOST_KEY, version: 2 });
    expect(await ada.get(inner.id)).toMatchObject({ host_key: null, version: 1 });
    await ada.remove(inner.id);
    await ada.remove(jump.id);
  });
});

it('a private key with more than 128 rounds is refused where it is entered', async () => {
  const passphrase = randomPassword();
  const costly = createLockedKey(129, passphrase);
  const config = createSshServerConfig({
    auth_method: 'key',
    password: null,
    private_key: costly,
    passphrase,
  });
  const errors = [{ path: 'connection_config.private_key', message: expect.stringMatching(/128 rounds/) }];
  for (const [path, json] of [
    ['', { name: 'A server', server_type: 'ssh', connection_config: config }],
    ['/test', { server_type: 'ssh', connection_config: config }],
  ] as const)
    expect(await ada.expectRefusal('POST', path, json)).toMatchObject({ status: 400, errors });
  const { id } = await ada.add({ connection_config: createSshServerConfig({ private_key: randomKey() }) });
  const change = { connection_config: { private_key: costly, passphrase } };
  expect(await ada.expectRefusal('PUT', `/${id}`, change)).toMatchObject({ status: 400, errors });
});
