import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { beforeEach, describe, expect, it } from '@jest/globals';
import type { KeyAdminContext } from '../../../src/cli/context.ts';
import { assertCanary } from '../../../src/keys/admin/canary.ts';
import { checkKeys } from '../../../src/keys/admin/check.ts';
import { rotateKeys, type RotateOptions } from '../../../src/keys/admin/rotate.ts';
import { createPoolWriter } from '../../../src/keys/pool-writer.ts';
import { decryptKey } from '../../../src/keys/stored-key.ts';
import { findFernetTime, parseFernetKey, encryptFernet } from '../../../src/lib/crypto/fernet.ts';
import { createKeyring } from '../../../src/lib/crypto/keyring.ts';
import type { Owner } from '../../../src/lib/owner.ts';
import { fernetKey } from '../../support/app.ts';
import { adminClient, stack } from '../../support/stack.ts';
import { until } from '../../support/until.ts';
import { createRelay } from '../keycloak-relay.ts';
import {
  readAuditTrail,
  createRealmUser,
  createFixture,
  editOwnerRecord,
  toEnvironment,
  randomOwner,
  readStoredPool,
  storeKey,
  type FixtureSettings,
} from './fixture.ts';

const MAIN = path.resolve(import.meta.dirname, '..', '..', '..', 'src', 'cli', 'main.ts');

const home = createFixture();
/** The realm that holds the records. */
let vaultRealm = '';

const open = (encryptionKeys: readonly string[], change: Partial<FixtureSettings> = {}) =>
  home.open({ vaultRealm, encryptionKeys, ...change });

const rotate = (custody: KeyAdminContext, options: Partial<RotateOptions> = {}) =>
  rotateKeys(custody, { acceptLoss: false, onProgress: () => undefined, ...options });

const ringOf = async (custody: KeyAdminContext, owner: Owner, provider = 'openai') =>
  (await readStoredPool(custody, owner, provider)).keys.map(({ token }) =>
    custody.keyring.findKeyIndex(token),
  );

/** The secrets that are usable, in the order of the pool. */
async function secretsOf(custody: KeyAdminContext, owner: Owner, provider = 'openai') {
  const { keys } = await readStoredPool(custody, owner, provider);
  return keys.map((key) => decryptKey(custody.keyring, { owner, provider }, key)?.secret);
}

describe.each(['in records of their own', 'with the people themselves'])('keys %s', (layout) => {
  const isOneRealm = layout === 'with the people themselves';
  /** The old key and the new one. */
  let [a, b] = ['', ''];

  beforeEach(() => {
    vaultRealm = isOneRealm ? home.realms.people : home.settings.vaultRealm;
    [a, b] = [fernetKey(), fernetKey()];
  });

  const newPerson = async (): Promise<Owner> =>
    isOneRealm ? (await createRealmUser(home.realms)).owner : randomOwner();

  it('are all sealed under the first key, with the same text and the same time, and nothing else changes', async () => {
    const before = open([a]);
    await assertCanary(before);
    const [one, two] = [await newPerson(), await newPerson()];
    const first = await storeKey(before, one, { label: 'mine', ownerName: 'ann' });
    await storeKey(before, one, { provider: 'openrouter', ownerName: 'ann' });
    const ring = open([b, a]);
    const already = await storeKey(ring, two, { ownerName: 'bob' });
    // Made years ago, and holding a member that this version knows nothing of.
    const key = (await readStoredPool(ring, one)).keys[0];
    const aged = encryptFernet(
      parseFernetKey(a),
      Buffer.from(createKeyring([a]).decrypt(key?.token ?? '') ?? ''),
      {
        timeMs: Date.UTC(2021, 3, 5),
      },
    );
    const value = { ...(JSON.parse(key?.value ?? '') as object), token: aged, later: { x: 1 } };
    await editOwnerRecord(ring, one, { byok_openai: [JSON.stringify(value)], note: ['of an administrator'] });
    const admin = await adminClient(vaultRealm);
    const record = await ring.vault.findRecord(one, null);
    const old = await admin.users.findOne({ id: record?.id ?? '' });
    const untouched = await readStoredPool(ring, two);

    expect(await checkKeys(ring)).toMatchObject({ records: 2, keys: 3, byRingKey: [1, 2], canary: 1 });
    const report = await rotate(ring);
    expect(report).toMatchObject({ resealed: 2, failed: [], left: [], isFinished: true });
    expect(report.counts).toMatchObject({ keys: 3, byRingKey: [3, 0] });

    const onlyNew = open([b]);
    expect(await secretsOf(onlyNew, one)).toEqual([first.key]);
    expect(await secretsOf(onlyNew, two)).toEqual([already.key]);
    const resealed = (await readStoredPool(onlyNew, one)).keys[0];
    expect(findFernetTime(resealed?.token ?? '')).toEqual(new Date(Date.UTC(2021, 3, 5)));
    expect(JSON.parse(resealed?.value ?? '')).toEqual({ ...value, token: resealed?.token });
    const now = await admin.users.findOne({ id: record?.id ?? '' });
    const rest = (user: typeof now) => {
      const {
        byok_openai: _o,
        byok_openrouter: _r,
        ...others
      } = (user?.attributes ?? {}) as Record<string, unknown>;
      return { ...user, attributes: others };
    };
    expect(rest(now)).toEqual(rest(old));
    expect(await readStoredPool(ring, two)).toEqual(untouched);
    expect((await readAuditTrail(ring, one)).slice(-2)).toEqual([
      { actor: 'system:keys-rotate', action: 'key.resealed' },
      { actor: 'system:keys-rotate', action: 'key.resealed' },
    ]);
    expect((await readAuditTrail(ring, two)).map(({ action }) => action)).toEqual(['key.added']);
  });

  it('let the old key be taken out of ENCRYPTION_KEY after the rotation, and not before', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owner = await newPerson();
    await storeKey(before, owner);
    const start = (keys: string[]) => assertCanary({ ...before, keyring: createKeyring(keys) });
    await expect(start([b])).rejects.toThrow('does not fit');
    await expect(rotate(open([b]))).rejects.toThrow('does not fit');
    await rotate(open([b, a]));
    await start([b]);
    await expect(start([a])).rejects.toThrow('does not fit');
    // Once more changes nothing.
    const [token] = (await readStoredPool(before, owner)).keys.map((key) => key.token);
    expect(await rotate(open([b, a]))).toMatchObject({ resealed: 0, isFinished: true });
    expect((await readStoredPool(before, owner)).keys.map((key) => key.token)).toEqual([token]);
  });

  it('that are misplaced, undecryptable or no keys are counted, left as they are, and named', async () => {
    const before = open([a]);
    await assertCanary(before);
    const [one, two] = [await newPerson(), await newPerson()];
    await storeKey(before, one);
    await storeKey(open([fernetKey()]), one, { provider: 'openrouter' });
    await storeKey(before, two);
    const stolen = (await readStoredPool(before, one)).keys[0];
    const own = (await readStoredPool(before, two)).keys[0];
    const foreign = ['{"v":9}', 'typed by hand'];
    await editOwnerRecord(before, two, { byok_openai: [own?.value ?? '', stolen?.value ?? '', ...foreign] });

    const ring = open([b, a]);
    const counts = {
      ...{
        records: 2,
        withoutOwner: 0,
        keys: 4,
        undecryptable: 1,
        misplaced: 1,
        notKeys: 2,
        duplicatedIds: 0,
      },
    };
    expect(await checkKeys(ring)).toMatchObject({ ...counts, byRingKey: [0, 3] });
    const report = await rotate(ring);
    expect(report).toMatchObject({ resealed: 2, failed: [], isFinished: false });
    expect(report.counts).toMatchObject({ ...counts, byRingKey: [2, 1] });
    const provider = 'openrouter';
    const lost = (await readStoredPool(ring, one, provider)).keys[0];
    expect(report.skipped.toSorted((x, y) => x.why.localeCompare(y.why))).toEqual([
      { key: `${two}, openai/${stolen?.id}`, why: 'misplaced' },
      { key: `${one}, ${provider}/${lost?.id}`, why: 'undecryptable' },
    ]);
    const left = await readStoredPool(ring, two);
    expect(left.unreadable.toSorted()).toEqual(foreign.toSorted());
    expect(left.keys.map((key) => key.value)).toContain(stolen?.value);
    // The old key would still open something, so it stays needed until that is given up.
    await expect(assertCanary({ ...ring, keyring: createKeyring([b]) })).rejects.toThrow('does not fit');
    expect(await rotate(ring, { acceptLoss: true })).toMatchObject({ resealed: 0, isFinished: true });
    await assertCanary({ ...ring, keyring: createKeyring([b]) });
  });

  it('of an id that stands twice are counted, and the older one does not keep the old key needed', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owner = await newPerson();
    const { id, key } = await storeKey(before, owner);
    const value = (await readStoredPool(before, owner)).keys[0]?.value ?? '';
    const older = JSON.parse(value) as { token: string };
    older.token = encryptFernet(parseFernetKey(a), Buffer.from('{}'), { timeMs: 1_000_000 });
    await editOwnerRecord(before, owner, { byok_openai: [value, JSON.stringify(older)] });
    const ring = open([b, a]);
    expect(await checkKeys(ring)).toMatchObject({ keys: 2, duplicatedIds: 1, misplaced: 1 });
    expect(await rotate(ring)).toMatchObject({ resealed: 1, isFinished: true });
    const pool = await readStoredPool(ring, owner);
    expect([pool.keys.map((each) => each.id), pool.superseded]).toEqual([[id], []]);
    expect(await secretsOf(open([b]), owner)).toEqual([key]);
  });

  it('under a key that was removed while in use are undecryptable until it is back', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owner = await newPerson();
    const { key } = await storeKey(before, owner);
    const without = open([b]);
    expect(await checkKeys(without)).toMatchObject({
      ...{ keys: 1, byRingKey: [0], undecryptable: 1, canary: undefined },
    });
    expect(await secretsOf(without, owner)).toEqual([undefined]);
    // A rotation that accepts the loss does not make it worse: the key comes back with the old encryption key.
    expect(await rotate(without, { acceptLoss: true })).toMatchObject({ resealed: 0, isFinished: true });
    expect(await secretsOf(open([b, a]), owner)).toEqual([key]);
    expect(await rotate(open([b, a]))).toMatchObject({ resealed: 1, isFinished: true });
    expect(await secretsOf(without, owner)).toEqual([key]);
  });

  it('that are all undecryptable leave the rotation undone until the loss is accepted', async () => {
    const before = open([a]);
    await assertCanary(before);
    await storeKey(open([fernetKey()]), await newPerson());
    const ring = open([b, a]);
    expect(await rotate(ring)).toMatchObject({ failed: [], isFinished: false });
    await expect(assertCanary(open([b]))).rejects.toThrow('does not fit');
    expect(await rotate(ring, { acceptLoss: true })).toMatchObject({ isFinished: true });
    await assertCanary(open([b]));
  });

  it('lose nothing when others add and delete keys of the same owners meanwhile', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owners = await Promise.all(Array.from({ length: 4 }, newPerson));
    const expected = new Map<Owner, Map<string, string>>();
    for (const owner of owners) {
      const stored = [
        await storeKey(before, owner),
        await storeKey(before, owner),
        await storeKey(before, owner),
      ];
      expected.set(owner, new Map(stored.map(({ id, key }) => [id, key])));
    }
    const ring = open([b, a]);
    // Apps on both sides of the change of settings: one that seals under the old key, one under the new.
    const writers = [open([a, b]), open([b, a])];
    const isOver = { now: false };
    const busy = writers.map(async (custody) => {
      for (let round = 0; !isOver.now || round < 2; round += 1) {
        for (const owner of owners) {
          const mine = expected.get(owner);
          const added = await storeKey(custody, owner);
          mine?.set(added.id, added.key);
          const [victim = ''] = mine?.keys() ?? [];
          mine?.delete(victim);
          await deleteKey(custody, owner, victim);
        }
      }
    });
    const reports = [await rotate(ring), await rotate(ring)];
    isOver.now = true;
    await Promise.all(busy);
    expect(reports.flatMap(({ failed }) => failed)).toEqual([]);
    expect(await rotate(ring)).toMatchObject({ failed: [], left: [], isFinished: true });
    const onlyNew = open([b]);
    for (const owner of owners) {
      const { keys } = await readStoredPool(onlyNew, owner);
      const found = keys.map((key) => [
        key.id,
        decryptKey(onlyNew.keyring, { owner, provider: 'openai' }, key)?.secret,
      ]);
      expect(found.toSorted()).toEqual([...(expected.get(owner) ?? [])].toSorted());
    }
  }, 120_000);

  it('are gone on with where a killed run stood', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owners = await Promise.all(Array.from({ length: 6 }, newPerson));
    const secrets = new Map<Owner, string>();
    for (const owner of owners) secrets.set(owner, (await storeKey(before, owner)).key);
    const relay = await createRelay(stack.keycloak.url);
    try {
      const child = spawn(process.execPath, [MAIN, 'keys', 'rotate'], {
        cwd: import.meta.dirname,
        env: toEnvironment({ ...home.settings, vaultRealm, encryptionKeys: [b, a], keycloakUrl: relay.url }),
        stdio: 'ignore',
      });
      let updates = 0;
      relay.after((call) => {
        if (call.method !== 'PUT' || (updates += 1) < 3) return 'pass';
        child.kill('SIGKILL');
        return 'hold';
      });
      const [, signal] = (await once(child, 'exit')) as [number | null, string | null];
      expect(signal).toBe('SIGKILL');
    } finally {
      await relay.close();
    }
    const ring = open([b, a]);
    // Postgres frees the dead process's lock when it sees the connection end.
    await until(() =>
      rotate(ring).then(
        ({ isFinished }) => isFinished,
        () => false,
      ),
    );
    const resealed = await Promise.all(owners.map((owner) => readAuditTrail(ring, owner)));
    const counts = resealed.map((rows) => rows.filter(({ action }) => action === 'key.resealed').length);
    expect(counts).toEqual([1, 1, 1, 1, 1, 1]);
    for (const owner of owners) {
      expect(await ringOf(ring, owner)).toEqual([0]);
      expect(await secretsOf(ring, owner)).toEqual([secrets.get(owner)]);
    }
  }, 60_000);

  it('that cannot be written are named, the others are sealed anew, and the old key stays needed', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owners = await Promise.all(Array.from({ length: 3 }, newPerson));
    for (const owner of owners) await storeKey(before, owner);
    const [stuck] = owners;
    const stuckId = (await before.vault.findRecord(stuck ?? randomOwner(), null))?.id ?? '';
    const relay = await createRelay(stack.keycloak.url);
    relay.before((call) =>
      call.method === 'PUT' && call.url?.endsWith(stuckId) === true ? { answer: 403 } : 'pass',
    );
    const report = await rotate(open([b, a], { keycloakUrl: relay.url })).finally(() => relay.close());
    expect(report).toMatchObject({
      resealed: 2,
      failed: [{ pool: `${stuck}, openai`, why: 'keycloak_unavailable' }],
      isFinished: false,
    });
    await expect(assertCanary({ ...before, keyring: createKeyring([b]) })).rejects.toThrow('does not fit');
    expect(await rotate(open([b, a]))).toMatchObject({ resealed: 1, isFinished: true });
  });
});

async function deleteKey(custody: KeyAdminContext, owner: Owner, id: string): Promise<void> {
  await createPoolWriter(custody).write({
    ...{ owner, provider: 'openai', ownerName: 'somebody', actor: owner, requestId: 'test' },
    action: 'key.deleted',
    plan: (pool) => ({
      values: [...pool.keys.filter((key) => key.id !== id).map((key) => key.value), ...pool.unreadable],
      keyIds: [id],
    }),
  });
}
