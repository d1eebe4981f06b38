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

const home = createFixture();
let ssh: Runner;
/** The old key and the new one. */
let [a, b] = ['', ''];

beforeEach(async () => {
  [a, b] = [fernetKey(), fernetKey()];
  const custody = open([a]);
  await assertCanary(custody);
  const runner = createRunners({ dialer: createTestDialer(), log: custody.log }).get('ssh');
  if (runner === undefined) throw new Error('there is no SSH');
  ssh = runner;
});

const open = (encryptionKeys: readonly string[]) => home.open({ encryptionKeys });

const rotate = (custody: KeyAdminContext, options: Partial<RotateOptions> = {}) =>
  rotateKeys(custody, { acceptLoss: false, onProgress: () => undefined, ...options });

/** As the app stores a server, under the first key of the custody's ring. */
async function addServer({ database, keyring }: KeyAdminContext, owner: Owner, password = randomPassword()) {
  const place = { owner, serverId: randomUUID(), hostKey: null };
  const config = encryptConfig(
    keyring,
    ssh,
    place,
    await ssh.config.parseAsync(createSshServerConfig({ password })),
  );
  const settings = { name: 'x', workspacePath: null, isDefault: false, isActive: true, hostKey: null };
  await database.withOwner(owner, (sql) =>
    insertServer(sql, getUserId(owner), { id: place.serverId, serverType: 'ssh', config, ...settings }),
  );
  return { id: place.serverId, place, password };
}

const serversOf = ({ database }: KeyAdminContext, owner: Owner) => database.withOwner(owner, listServers);

async function passwordOf(custody: KeyAdminContext, owner: Owner, id: string, keys: readonly string[]) {
  const stored = (await serversOf(custody, owner)).find((server) => server.id === id);
  const place = { owner, serverId: id, hostKey: null };
  const config = await decryptConfig(createKeyring(keys), ssh, place, stored?.config ?? {});
  return (config as { password?: string } | undefined)?.password;
}

const runsOf = ({ database }: KeyAdminContext) =>
  createRunsStore(database, {
    ...{ instance: 'one', leaseMs: 60_000, mostQueued: 1 },
    limits: { perUser: 9, perServer: 9 },
  });

/** As the app stores a run that is under way and has said something, twice. */
async function addRun(custody: KeyAdminContext, owner: Owner, command = 'true'): Promise<RunRef> {
  const seals = createRunEncryption(custody.keyring);
  const run = { id: randomUUID(), owner };
  const sealed = seals.encryptRun(run, StartRun.parse({ command }), createPrincipal(getUserId(owner)));
  const server = { serverId: 'a', serverName: 'A', serverType: 'ssh' } as const;
  const more = { serverVersions: [1], language: null };
  await runsOf(custody).submit({ ...run, ...server, ...more, codeSha256: '', sealed }, true, 'req_test');
  const news = { type: 'output', stream: 'stdout', encoding: 'utf8', data: Buffer.from('said') } as const;
  await runsOf(custody).saveEvents(
    run,
    [1, 2].map((seq) => seals.encryptEvents(run, [{ seq, news }])),
  );
  return run;
}

/** What a run was, and what it has said, to whoever has these keys. */
async function readRun(custody: KeyAdminContext, run: RunRef, keys: readonly string[]) {
  const seals = createRunEncryption(createKeyring(keys));
  const batches = await runsOf(custody).readBatches(run, 0, 9);
  return {
    program: seals.decryptProgram(run, (await runsOf(custody).findWhole(run))?.sealed ?? ''),
    said: batches.map((batch) => seals.decryptEvents(run, batch)?.map(({ news }) => news)),
  };
}

const said = [expect.objectContaining({ type: 'output', data: Buffer.from('said') })];

async function textsOf(custody: KeyAdminContext): Promise<EncryptedText[]> {
  const texts: EncryptedText[] = [];
  for (const sealed of custody.otherSecrets) for await (const text of sealed.list()) texts.push(text);
  return texts;
}

async function onlyText(custody: KeyAdminContext): Promise<EncryptedText> {
  const [text] = await textsOf(custody);
  if (text === undefined) throw new Error('nothing is sealed');
  return text;
}

describe('keys check', () => {
  it('counts the secrets of servers and runs, whoever’s they are, by the key that opens them', async () => {
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

  it('finds those that were moved to another place', async () => {
    const custody = open([a]);
    const [owner, other] = [randomOwner(), randomOwner()];
    await addServer(custody, owner);
    const { id } = await addServer(custody, other);
    const [stolen] = (await serversOf(custody, owner)).map(({ config }) => config['password']);
    await custody.database.withOwner(other, (sql) =>
      sql.run(
        `UPDATE user_execution_servers SET connection_config = connection_config || $2::jsonb WHERE id = $1`,
        [id, JSON.stringify({ password: stolen })],
      ),
    );
    const [run, moved] = [await addRun(custody, owner), await addRun(custody, owner)];
    await custody.database.withOwner(owner, (sql) =>
      sql.run('UPDATE runs SET sealed = (SELECT sealed FROM runs WHERE id = $1) WHERE id = $2', [
        run.id,
        moved.id,
      ]),
    );
    expect((await checkKeys(custody)).otherSecrets).toMatchObject([
      { texts: 2, misplaced: 1, undecryptable: 0 },
      { texts: 6, misplaced: 1, undecryptable: 0 },
    ]);
  });
});

describe('keys rotate', () => {
  it('seals the secrets of servers and runs under the new key: the old one is needed no more', async () => {
    const [owner, other] = [randomOwner(), randomOwner()];
    const before = open([a]);
    const server = await addServer(before, owner);
    const [stored] = await serversOf(before, owner);
    const run = await addRun(before, other, 'echo it');
    await storeKey(before, owner);
    const custody = open([b, a]);
    expect(await rotate(custody)).toMatchObject({
      ...{ resealed: 1, resealedElsewhere: 4, isFinished: true },
      elsewhere: [
        { kind: SERVERS, byRingKey: [1, 0] },
        { kind: RUNS, byRingKey: [3, 0] },
      ],
    });
    expect(await passwordOf(custody, owner, server.id, [b])).toBe(server.password);
    expect(await readRun(custody, run, [b])).toEqual({ program: { command: 'echo it' }, said: [said, said] });
    // Nothing else has changed, what a test has found still holds.
    const [now] = await serversOf(custody, owner);
    expect({ ...now, config: undefined }).toEqual({ ...stored, config: undefined });
    expect({ ...now?.config, password: undefined }).toEqual({ ...stored?.config, password: undefined });
    expect(await rotate(custody)).toMatchObject({ resealedElsewhere: 0, isFinished: true });
  });

  it('goes on where it stood when it was cut off', async () => {
    const owners = [randomOwner(), randomOwner(), randomOwner()];
    for (const owner of owners) await addServer(open([a]), owner);
    const custody = open([b, a]);
    const cutOff = new Error('cut off');
    const onProgress: RotateOptions['onProgress'] = ({ reencryptedSecrets: resealedElsewhere }) => {
      if (resealedElsewhere === 2) throw cutOff;
    };
    await expect(rotate(custody, { onProgress })).rejects.toBe(cutOff);
    expect((await checkKeys(custody)).otherSecrets[0]).toMatchObject({ byRingKey: [2, 1] });
    // A start still needs the old key.
    expect((await checkKeys(custody)).canaryKeyIndex).toBe(1);
    expect(await rotate(custody)).toMatchObject({ resealedElsewhere: 1, isFinished: true });
  });

  it('is not finished as long as a process that has the old key alone goes on storing', async () => {
    const owner = randomOwner();
    await addServer(open([a]), owner);
    const custody = open([b, a]);
    const [servers, ...others] = custody.otherSecrets;
    let isFirst = true;
    async function* listThenStore(): AsyncGenerator<EncryptedText> {
      if (servers !== undefined) yield* servers.list();
      if (isFirst) await addServer(open([a]), owner);
      isFirst = false;
    }
    const sealedElsewhere = [{ kind: SERVERS, list: listThenStore }, ...others];
    expect(await rotate({ ...custody, otherSecrets: sealedElsewhere })).toMatchObject({
      ...{ resealedElsewhere: 1, isFinished: false },
      elsewhere: [{ byRingKey: [1, 1] }, { texts: 0 }],
    });
    expect((await checkKeys(custody)).canaryKeyIndex).toBe(1);
    expect(await rotate(custody)).toMatchObject({ resealedElsewhere: 1, isFinished: true });
  });

  it('leaves what no key opens as it is, and is finished all the same', async () => {
    const owner = randomOwner();
    const lost = await addServer(open([fernetKey()]), owner);
    await addServer(open([a]), owner);
    const custody = open([b, a]);
    const tokenOf = async () =>
      (await serversOf(custody, owner)).find(({ id }) => id === lost.id)?.config['password'];
    const before = await tokenOf();
    expect(await rotate(custody)).toMatchObject({
      ...{ resealedElsewhere: 1, isFinished: true, opensNothing: false },
      elsewhere: [{ texts: 2, undecryptable: 1 }, { texts: 0 }],
    });
    expect(await tokenOf()).toBe(before);
  });
});

describe('what is changed while it is being sealed anew', () => {
  it('of a server stays as its owner has it', async () => {
    const owner = randomOwner();
    const custody = open([b, a]);
    const server = await addServer(open([a]), owner);
    const text = await onlyText(custody);
    const next = custody.keyring.reencrypt(text.token) ?? '';
    let replaced: Promise<boolean> | undefined;
    const changed = randomPassword();
    await custody.database.withOwner(owner, async (sql) => {
      await lockServers(sql, getUserId(owner));
      const servers = await listServers(sql);
      // It waits: what was read here would otherwise bring the old token back.
      replaced = text.replace(next);
      await isWaiting(custody);
      const config = await ssh.config.parseAsync(createSshServerConfig({ password: changed }));
      const sealed = encryptConfig(open([a]).keyring, ssh, server.place, config);
      for (const stored of servers) await updateServer(sql, stored.id, { ...stored, config: sealed }, true);
    });
    expect(await replaced).toBe(false);
    expect(await passwordOf(custody, owner, server.id, [a])).toBe(changed);
  });

  it('of a run stays as its end has it', async () => {
    const custody = open([b, a]);
    const [running, over] = [await addRun(open([a]), randomOwner()), await addRun(open([a]), randomOwner())];
    const texts = await textsOf(custody);
    const seals = createRunEncryption(open([a]).keyring);
    await runsOf(custody).finish(over, {
      ...{ exit: createRunExit('exited', null), batches: [], total: NO_BYTES, lastSeq: 2 },
      reseal: (sealed) => seals.reencryptProgram(over, sealed),
    });
    const outcomes = await Promise.all(
      texts.map(async (text) => [
        text.owner,
        await text.replace(custody.keyring.reencrypt(text.token) ?? ''),
      ]),
    );
    expect(outcomes.filter(([, isReplaced]) => isReplaced === false)).toEqual([[over.owner, false]]);
    expect(await readRun(custody, running, [b])).toMatchObject({ program: { command: 'true' } });
    expect(await readRun(custody, over, [a, b])).toMatchObject({ program: { command: 'true' } });
  });

  it('is not brought back when it was deleted', async () => {
    const custody = open([b, a]);
    const owner = randomOwner();
    const { id } = await addServer(open([a]), owner);
    const run = await addRun(open([a]), owner);
    const texts = await textsOf(custody);
    await custody.database.withOwner(owner, (sql) => deleteServer(sql, id));
    await runsOf(custody).removeOwner(run.owner);
    for (const text of texts) expect(await text.replace('another')).toBe(false);
    expect(await textsOf(custody)).toEqual([]);
  });
});

describe('a start on a key that does not fit', () => {
  it.each<[string, (custody: KeyAdminContext) => Promise<unknown>]>([
    ['a server', (custody) => addServer(custody, randomOwner())],
    ['a run', (custody) => addRun(custody, randomOwner())],
  ])('is refused where nobody has a key, but somebody %s', async (_what, add) => {
    await add(open([a]));
    await expect(assertCanary(open([b]))).rejects.toThrow('ENCRYPTION_KEY does not fit');
    await assertCanary(open([b, a]));
  });
});

/** Resolves once somebody waits for an advisory lock. */
async function isWaiting({ database }: KeyAdminContext): Promise<void> {
  await until(
    async () => (await database.run("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")) > 0,
  );
}
