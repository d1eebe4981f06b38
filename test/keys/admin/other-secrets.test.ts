import { randomUUID } from 'node:crypto';
import { beforeEach, describe, expect, it } from '@jest/globals';
import type { KeyAdminContext } from '../../../src/cli/context.ts';
import { assertCanary } from '../../../src/keys/admin/canary.ts';
import { checkKeys } from '../../../src/keys/admin/check.ts';
import { rotateKeys, type RotateOptions } from '../../../src/keys/admin/rotate.ts';
import { createKeyring } from '../../../src/lib/crypto/keyring.ts';
import { getUserId, type Owner } from '../../../src/lib/owner.ts';
import type { EncryptedText } from '../../../src/lib/crypto/encrypted-texts.ts';
import { createRunners } from '../../../src/runners/index.ts';
import type { Runner } from '../../../src/runners/runner.ts';
import { createRunExit, NO_BYTES } from '../../../src/runs/events.ts';
import { createRunsStore } from '../../../src/runs/runs-store.ts';
import { StartRun } from '../../../src/runs/schema.ts';
import { createRunEncryption, type RunRef } from '../../../src/runs/run-encryption.ts';
import { createRunData } from '../../../src/runs/service.ts';
import { decryptConfig, encryptConfig } from '../../../src/servers/secret-encryption.ts';
import {
  deleteServer,
  insertServer,
  listServers,
  lockServers,
  updateServer,
} from '../../../src/servers/servers-store.ts';
import { fernetKey } from '../../support/app.ts';
import { createTestDialer } from '../../support/local-upstreams.ts';
import { createSshServerConfig, randomPassword } from '../../support/servers.ts';
import { until } from '../../support/until.ts';
import { createPrincipal } from '../instance.ts';
import { createFixture, randomOwner, storeKey } from './fixture.ts';

const SERVERS = 'secrets of servers';
const RUNS = 'runs and their events';

const fixture = createFixture();
let ssh: Runner;
/** The old key and the new one. */
let [a, b] = ['', ''];

beforeEach(async () => {
  [a, b] = [fernetKey(), fernetKey()];
  const context = open([a]);
  await assertCanary(context);
  const runner = createRunners({ dialer: createTestDialer(), log: context.log }).get('ssh');
  if (runner === undefined) throw new Error('the SSH runner is missing');
  ssh = runner;
});

const open = (encryptionKeys: readonly string[]) => fixture.open({ encryptionKeys });

const rotate = (context: KeyAdminContext, options: Partial<RotateOptions> = {}) =>
  rotateKeys(context, { acceptLoss: false, onProgress: () => undefined, ...options });

/** Stores a server as the app does, encrypted with the first key of the ring. */
async function addServer({ database, keyring }: KeyAdminContext, owner: Owner, password = randomPassword()) {
  const binding = { owner, serverId: randomUUID(), hostKey: null };
  const config = encryptConfig(
    keyring,
    ssh,
    binding,
    await ssh.config.parseAsync(createSshServerConfig({ password })),
  );
  const flags = { isDefault: false, isActive: true, tokenRuns: false };
  const settings = { name: 'x', workspacePath: null, hostKey: null, ...flags };
  await database.withOwner(owner, (sql) =>
    insertServer(sql, getUserId(owner), { id: binding.serverId, serverType: 'ssh', config, ...settings }),
  );
  return { id: binding.serverId, binding, password };
}

const listServersOf = ({ database }: KeyAdminContext, owner: Owner) => database.withOwner(owner, listServers);

async function readPassword(context: KeyAdminContext, owner: Owner, id: string, keys: readonly string[]) {
  const stored = (await listServersOf(context, owner)).find((server) => server.id === id);
  const binding = { owner, serverId: id, hostKey: null };
  const config = await decryptConfig(createKeyring(keys), ssh, binding, stored?.config ?? {});
  return (config as { password?: string } | undefined)?.password;
}

const runsStoreOf = ({ database }: KeyAdminContext) =>
  createRunsStore(database, {
    ...{ instance: 'one', leaseMs: 60_000, maxQueuedPerUser: 1 },
    limits: { perUser: 9, perServer: 9 },
  });

/** Stores a running run with two output events, as the app does. */
async function addRun(context: KeyAdminContext, owner: Owner, command = 'true'): Promise<RunRef> {
  const encryption = createRunEncryption(context.keyring);
  const run = { id: randomUUID(), owner };
  const ciphertext = encryption.encryptRun(
    run,
    StartRun.parse({ command }),
    createPrincipal(getUserId(owner)),
  );
  const server = { serverId: 'a', serverName: 'A', serverType: 'ssh' } as const;
  const more = { serverVersions: [1], language: null };
  await runsStoreOf(context).submit(
    { ...run, ...server, ...more, codeSha256: '', ciphertext },
    true,
    'req_test',
  );
  const event = { type: 'output', stream: 'stdout', encoding: 'utf8', data: Buffer.from('text') } as const;
  await runsStoreOf(context).saveEvents(
    run,
    [1, 2].map((seq) => encryption.encryptEvents(run, [{ seq, event }])),
  );
  return run;
}

/** Decrypts the program and the events of a run with these keys. */
async function readRun(context: KeyAdminContext, run: RunRef, keys: readonly string[]) {
  const encryption = createRunEncryption(createKeyring(keys));
  const batches = await runsStoreOf(context).readBatches(run, 0, 9);
  return {
    program: encryption.decryptProgram(
      run,
      (await runsStoreOf(context).findRunWithProgram(run))?.sealed ?? '',
    ),
    events: batches.map((batch) => encryption.decryptEvents(run, batch)?.map(({ event }) => event)),
  };
}

const decryptedEvents = [expect.objectContaining({ type: 'output', data: Buffer.from('text') })];

async function listTexts(context: KeyAdminContext): Promise<EncryptedText[]> {
  const texts: EncryptedText[] = [];
  for (const secrets of context.otherSecrets) for await (const text of secrets.list()) texts.push(text);
  return texts;
}

const replaceText = ({ database }: KeyAdminContext, text: EncryptedText, next: string) =>
  database.withOwner(text.owner, (sql) => text.replace(sql, next));

async function getOnlyText(context: KeyAdminContext): Promise<EncryptedText> {
  const [text] = await listTexts(context);
  if (text === undefined) throw new Error('no text is stored');
  return text;
}

describe('keys check', () => {
  it('counts the secrets of servers and runs of all owners by the key that decrypts them', async () => {
    for (const owner of [randomOwner(), randomOwner()]) await addServer(open([a]), owner);
    await addServer(open([b]), randomOwner());
    await addRun(open([a]), randomOwner());
    expect((await checkKeys(open([b, a]))).otherSecrets).toEqual([
      { kind: SERVERS, texts: 3, byRingKey: [1, 2], undecryptable: 0, misplaced: 0 },
      { kind: RUNS, texts: 3, byRingKey: [0, 3], undecryptable: 0, misplaced: 0 },
    ]);
    expect((await checkKeys(open([b]))).otherSecrets).toMatchObject([
      { texts: 3, byRingKey: [1], undecryptable: 2 },
      { texts: 3, byRingKey: [0], undecryptable: 3 },
    ]);
  });

  it('counts secrets that were moved to another row as misplaced', async () => {
    const context = open([a]);
    const [owner, other] = [randomOwner(), randomOwner()];
    await addServer(context, owner);
    const { id } = await addServer(context, other);
    const [stolen] = (await listServersOf(context, owner)).map(({ config }) => config['password']);
    await context.database.withOwner(other, (sql) =>
      sql.run(
        `UPDATE user_execution_servers SET connection_config = connection_config || $2::jsonb WHERE id = $1`,
        [id, JSON.stringify({ password: stolen })],
      ),
    );
    const [run, moved] = [await addRun(context, owner), await addRun(context, owner)];
    await context.database.withOwner(owner, (sql) =>
      sql.run('UPDATE runs SET sealed = (SELECT sealed FROM runs WHERE id = $1) WHERE id = $2', [
        run.id,
        moved.id,
      ]),
    );
    expect((await checkKeys(context)).otherSecrets).toMatchObject([
      { texts: 2, misplaced: 1, undecryptable: 0 },
      { texts: 6, misplaced: 1, undecryptable: 0 },
    ]);
  });
});

describe('keys rotate', () => {
  it('re-encrypts the secrets of servers and runs with the new key, so that the old one is no longer needed', async () => {
    const [owner, other] = [randomOwner(), randomOwner()];
    const before = open([a]);
    const server = await addServer(before, owner);
    const [stored] = await listServersOf(before, owner);
    const run = await addRun(before, other, 'echo it');
    await storeKey(before, owner);
    const context = open([b, a]);
    expect(await rotate(context)).toMatchObject({
      ...{ reencrypted: 1, reencryptedSecrets: 4, isFinished: true },
      otherSecrets: [
        { kind: SERVERS, byRingKey: [1, 0] },
        { kind: RUNS, byRingKey: [3, 0] },
      ],
    });
    expect(await readPassword(context, owner, server.id, [b])).toBe(server.password);
    expect(await readRun(context, run, [b])).toEqual({
      program: { command: 'echo it' },
      events: [decryptedEvents, decryptedEvents],
    });
    // Nothing else has changed, including the test result.
    const [now] = await listServersOf(context, owner);
    expect({ ...now, config: undefined }).toEqual({ ...stored, config: undefined });
    expect({ ...now?.config, password: undefined }).toEqual({ ...stored?.config, password: undefined });
    expect(await rotate(context)).toMatchObject({ reencryptedSecrets: 0, isFinished: true });
  });

  it('continues after an interruption', async () => {
    const owners = [randomOwner(), randomOwner(), randomOwner()];
    for (const owner of owners) await addServer(open([a]), owner);
    const context = open([b, a]);
    const interruption = new Error('interrupted');
    const onProgress: RotateOptions['onProgress'] = ({ reencryptedSecrets }) => {
      if (reencryptedSecrets === 2) throw interruption;
    };
    await expect(rotate(context, { onProgress })).rejects.toBe(interruption);
    expect((await checkKeys(context)).otherSecrets[0]).toMatchObject({ byRingKey: [2, 1] });
    // A start still needs the old key.
    expect((await checkKeys(context)).canaryKeyIndex).toBe(1);
    expect(await rotate(context)).toMatchObject({ reencryptedSecrets: 1, isFinished: true });
  });

  it('is not finished while a process that has only the old key stores secrets', async () => {
    const owner = randomOwner();
    await addServer(open([a]), owner);
    const context = open([b, a]);
    const [servers, ...others] = context.otherSecrets;
    let isFirst = true;
    async function* listThenStore(): AsyncGenerator<EncryptedText> {
      if (servers !== undefined) yield* servers.list();
      if (isFirst) await addServer(open([a]), owner);
      isFirst = false;
    }
    const otherSecrets = [{ kind: SERVERS, list: listThenStore }, ...others];
    expect(await rotate({ ...context, otherSecrets })).toMatchObject({
      ...{ reencryptedSecrets: 1, isFinished: false },
      otherSecrets: [{ byRingKey: [1, 1] }, { texts: 0 }],
    });
    expect((await checkKeys(context)).canaryKeyIndex).toBe(1);
    expect(await rotate(context)).toMatchObject({ reencryptedSecrets: 1, isFinished: true });
  });

  it('leaves secrets that no key decrypts unchanged, and is finished nevertheless', async () => {
    const owner = randomOwner();
    const lost = await addServer(open([fernetKey()]), owner);
    await addServer(open([a]), owner);
    const context = open([b, a]);
    const tokenOf = async () =>
      (await listServersOf(context, owner)).find(({ id }) => id === lost.id)?.config['password'];
    const before = await tokenOf();
    expect(await rotate(context)).toMatchObject({
      ...{ reencryptedSecrets: 1, isFinished: true, decryptsNothing: false },
      otherSecrets: [{ texts: 2, undecryptable: 1 }, { texts: 0 }],
    });
    expect(await tokenOf()).toBe(before);
  });
});

describe('a secret that changes during its re-encryption', () => {
  it('of a server keeps the change of its owner', async () => {
    const owner = randomOwner();
    const context = open([b, a]);
    const server = await addServer(open([a]), owner);
    const text = await getOnlyText(context);
    const next = context.keyring.reencrypt(text.ciphertext) ?? '';
    let replaced: Promise<boolean> | undefined;
    const changed = randomPassword();
    await context.database.withOwner(owner, async (sql) => {
      await lockServers(sql, getUserId(owner));
      const servers = await listServers(sql);
      // It waits for the lock. Otherwise it would restore the old token that was read here.
      replaced = replaceText(context, text, next);
      await untilLockAwaited(context);
      const config = await ssh.config.parseAsync(createSshServerConfig({ password: changed }));
      const encrypted = encryptConfig(open([a]).keyring, ssh, server.binding, config);
      for (const stored of servers)
        await updateServer(sql, stored.id, { ...stored, config: encrypted }, true);
    });
    expect(await replaced).toBe(false);
    expect(await readPassword(context, owner, server.id, [a])).toBe(changed);
  });

  it('of a run keeps the state at its end', async () => {
    const context = open([b, a]);
    const [running, finished] = [
      await addRun(open([a]), randomOwner()),
      await addRun(open([a]), randomOwner()),
    ];
    const texts = await listTexts(context);
    const encryption = createRunEncryption(open([a]).keyring);
    await runsStoreOf(context).finish(finished, {
      ...{ exit: createRunExit('exited', null), batches: [], total: NO_BYTES, lastSeq: 2 },
      reencrypt: (ciphertext) => encryption.reencryptProgram(finished, ciphertext),
    });
    const outcomes = await Promise.all(
      texts.map(async (text) => [
        text.owner,
        await replaceText(context, text, context.keyring.reencrypt(text.ciphertext) ?? ''),
      ]),
    );
    expect(outcomes.filter(([, isReplaced]) => isReplaced === false)).toEqual([[finished.owner, false]]);
    expect(await readRun(context, running, [b])).toMatchObject({ program: { command: 'true' } });
    expect(await readRun(context, finished, [a, b])).toMatchObject({ program: { command: 'true' } });
  });

  it('is not restored when it was deleted', async () => {
    const context = open([b, a]);
    const owner = randomOwner();
    const { id } = await addServer(open([a]), owner);
    const run = await addRun(open([a]), owner);
    const texts = await listTexts(context);
    await context.database.withOwner(owner, (sql) => deleteServer(sql, id));
    await createRunData(context).remove(run.owner);
    for (const text of texts) expect(await replaceText(context, text, 'another')).toBe(false);
    expect(await listTexts(context)).toEqual([]);
  });
});

describe('a start with an encryption key that does not fit', () => {
  it.each<[string, (context: KeyAdminContext) => Promise<unknown>]>([
    ['a server exists', (context) => addServer(context, randomOwner())],
    ['a run exists', (context) => addRun(context, randomOwner())],
  ])('is refused where there is no stored key but %s', async (_what, add) => {
    await add(open([a]));
    await expect(assertCanary(open([b]))).rejects.toThrow('ENCRYPTION_KEY does not fit');
    await assertCanary(open([b, a]));
  });
});

/** Resolves when a connection waits for an advisory lock. */
async function untilLockAwaited({ database }: KeyAdminContext): Promise<void> {
  await until(
    async () => (await database.run("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")) > 0,
  );
}
