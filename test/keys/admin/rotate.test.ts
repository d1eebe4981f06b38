import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { beforeEach, describe, expect, it } from '@jest/globals';
import type { KeyAdminContext } from '../../../src/cli/context.ts';
import { assertCanary } from '../../../src/keys/admin/canary.ts';
import { checkKeys } from '../../../src/keys/admin/check.ts';
import { rotateKeys, type RotateOptions } from '../../../src/keys/admin/rotate.ts';
import { changePool } from '../../../src/keys/pool-writer.ts';
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

const fixture = createFixture();
/** The realm with the vault records. */
let vaultRealm = '';

const open = (encryptionKeys: readonly string[], change: Partial<FixtureSettings> = {}) =>
  fixture.open({ vaultRealm, encryptionKeys, ...change });

const rotate = (context: KeyAdminContext, options: Partial<RotateOptions> = {}) =>
  rotateKeys(context, { acceptLoss: false, onProgress: () => undefined, ...options });

const ringIndexesOf = async (context: KeyAdminContext, owner: Owner, provider = 'openai') =>
  (await readStoredPool(context, owner, provider)).keys.map(({ token }) =>
    context.keyring.findKeyIndex(token),
  );

/** Decrypts the keys of a pool, in its order. */
async function secretsOf(context: KeyAdminContext, owner: Owner, provider = 'openai') {
  const { keys } = await readStoredPool(context, owner, provider);
  return keys.map((key) => decryptKey(context.keyring, { owner, provider }, key)?.secret);
}

describe.each(['in a vault realm', 'in one realm'])('keys %s', (layout) => {
  const isOneRealm = layout === 'in one realm';
  /** The old key and the new one. */
  let [a, b] = ['', ''];

  beforeEach(() => {
    vaultRealm = isOneRealm ? fixture.realms.main : fixture.settings.vaultRealm;
    [a, b] = [fernetKey(), fernetKey()];
  });

  const createOwner = async (): Promise<Owner> =>
    isOneRealm ? (await createRealmUser(fixture.realms)).owner : randomOwner();

  it('are re-encrypted with the first key, with the same plaintext and time, and nothing else changes', async () => {
    const before = open([a]);
    await assertCanary(before);
    const [one, two] = [await createOwner(), await createOwner()];
    const first = await storeKey(before, one, { label: 'mine', ownerName: 'ann' });
    await storeKey(before, one, { provider: 'openrouter', ownerName: 'ann' });
    const ring = open([b, a]);
    const already = await storeKey(ring, two, { ownerName: 'bob' });
    // Created years ago, with a member that this version does not know.
    const key = (await readStoredPool(ring, one)).keys[0];
    const oldToken = encryptFernet(
      parseFernetKey(a),
      Buffer.from(createKeyring([a]).decrypt(key?.token ?? '') ?? ''),
      {
        timeMs: Date.UTC(2021, 3, 5),
      },
    );
    const value = { ...(JSON.parse(key?.value ?? '') as object), token: oldToken, later: { x: 1 } };
    await editOwnerRecord(ring, one, { byok_openai: [JSON.stringify(value)], note: ['of an administrator'] });
    const admin = await adminClient(vaultRealm);
    const record = await ring.vault.findRecord(one, null);
    const userBefore = await admin.users.findOne({ id: record?.id ?? '' });
    const untouched = await readStoredPool(ring, two);

    expect(await checkKeys(ring)).toMatchObject({
      records: 2,
      keys: 3,
      byRingKey: [1, 2],
      canaryKeyIndex: 1,
    });
    const report = await rotate(ring);
    expect(report).toMatchObject({ reencrypted: 2, failed: [], skipped: [], isFinished: true });
    expect(report.counts).toMatchObject({ keys: 3, byRingKey: [3, 0] });

    const onlyNew = open([b]);
    expect(await secretsOf(onlyNew, one)).toEqual([first.key]);
    expect(await secretsOf(onlyNew, two)).toEqual([already.key]);
    const reencrypted = (await readStoredPool(onlyNew, one)).keys[0];
    expect(findFernetTime(reencrypted?.token ?? '')).toEqual(new Date(Date.UTC(2021, 3, 5)));
    expect(JSON.parse(reencrypted?.value ?? '')).toEqual({ ...value, token: reencrypted?.token });
    const userAfter = await admin.users.findOne({ id: record?.id ?? '' });
    const withoutKeys = (user: typeof userAfter) => {
      const {
        byok_openai: _o,
        byok_openrouter: _r,
        ...others
      } = (user?.attributes ?? {}) as Record<string, unknown>;
      return { ...user, attributes: others };
    };
    expect(withoutKeys(userAfter)).toEqual(withoutKeys(userBefore));
    expect(await readStoredPool(ring, two)).toEqual(untouched);
    expect((await readAuditTrail(ring, one)).slice(-2)).toEqual([
      { actor: 'system:keys-rotate', action: 'key.resealed' },
      { actor: 'system:keys-rotate', action: 'key.resealed' },
    ]);
    expect((await readAuditTrail(ring, two)).map(({ action }) => action)).toEqual(['key.added']);
  });

  it('allow the removal of the old key from ENCRYPTION_KEY after the rotation, and not before', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owner = await createOwner();
    await storeKey(before, owner);
    const start = (keys: string[]) => assertCanary({ ...before, keyring: createKeyring(keys) });
    await expect(start([b])).rejects.toThrow('does not fit');
    await expect(rotate(open([b]))).rejects.toThrow('does not fit');
    await rotate(open([b, a]));
    await start([b]);
    await expect(start([a])).rejects.toThrow('does not fit');
    // A second rotation changes nothing.
    const [token] = (await readStoredPool(before, owner)).keys.map((key) => key.token);
    expect(await rotate(open([b, a]))).toMatchObject({ reencrypted: 0, isFinished: true });
    expect((await readStoredPool(before, owner)).keys.map((key) => key.token)).toEqual([token]);
  });

  it('that are misplaced, undecryptable or unreadable are counted, named and left unchanged', async () => {
    const before = open([a]);
    await assertCanary(before);
    const [one, two] = [await createOwner(), await createOwner()];
    await storeKey(before, one);
    await storeKey(open([fernetKey()]), one, { provider: 'openrouter' });
    await storeKey(before, two);
    const stolen = (await readStoredPool(before, one)).keys[0];
    const ownKey = (await readStoredPool(before, two)).keys[0];
    const unreadable = ['{"v":9}', 'typed by hand'];
    await editOwnerRecord(before, two, {
      byok_openai: [ownKey?.value ?? '', stolen?.value ?? '', ...unreadable],
    });

    const ring = open([b, a]);
    const counts = {
      ...{
        records: 2,
        withoutOwner: 0,
        keys: 4,
        undecryptable: 1,
        misplaced: 1,
        unreadable: 2,
        duplicatedIds: 0,
      },
    };
    expect(await checkKeys(ring)).toMatchObject({ ...counts, byRingKey: [0, 3] });
    const report = await rotate(ring);
    expect(report).toMatchObject({ reencrypted: 2, failed: [], isFinished: false });
    expect(report.counts).toMatchObject({ ...counts, byRingKey: [2, 1] });
    const provider = 'openrouter';
    const lost = (await readStoredPool(ring, one, provider)).keys[0];
    expect(report.skipped.toSorted((x, y) => x.why.localeCompare(y.why))).toEqual([
      { key: `${two}, openai/${stolen?.id}`, why: 'misplaced' },
      { key: `${one}, ${provider}/${lost?.id}`, why: 'undecryptable' },
    ]);
    const poolAfter = await readStoredPool(ring, two);
    expect(poolAfter.unreadable.toSorted()).toEqual(unreadable.toSorted());
    expect(poolAfter.keys.map((key) => key.value)).toContain(stolen?.value);
    // The old key still decrypts a key, so it is required until the loss is accepted.
    await expect(assertCanary({ ...ring, keyring: createKeyring([b]) })).rejects.toThrow('does not fit');
    expect(await rotate(ring, { acceptLoss: true })).toMatchObject({ reencrypted: 0, isFinished: true });
    await assertCanary({ ...ring, keyring: createKeyring([b]) });
  });

  it('with a duplicate id are counted, and the older value does not require the old encryption key', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owner = await createOwner();
    const { id, key } = await storeKey(before, owner);
    const value = (await readStoredPool(before, owner)).keys[0]?.value ?? '';
    const older = JSON.parse(value) as { token: string };
    older.token = encryptFernet(parseFernetKey(a), Buffer.from('{}'), { timeMs: 1_000_000 });
    await editOwnerRecord(before, owner, { byok_openai: [value, JSON.stringify(older)] });
    const ring = open([b, a]);
    expect(await checkKeys(ring)).toMatchObject({ keys: 2, duplicatedIds: 1, misplaced: 1 });
    expect(await rotate(ring)).toMatchObject({ reencrypted: 1, isFinished: true });
    const pool = await readStoredPool(ring, owner);
    expect([pool.keys.map((each) => each.id), pool.superseded]).toEqual([[id], []]);
    expect(await secretsOf(open([b]), owner)).toEqual([key]);
  });

  it('under a removed encryption key are undecryptable until that is restored', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owner = await createOwner();
    const { key } = await storeKey(before, owner);
    const without = open([b]);
    expect(await checkKeys(without)).toMatchObject({
      ...{ keys: 1, byRingKey: [0], undecryptable: 1, canaryKeyIndex: undefined },
    });
    expect(await secretsOf(without, owner)).toEqual([undefined]);
    // A rotation that accepts the loss changes no value: the key decrypts again with the old encryption key.
    expect(await rotate(without, { acceptLoss: true })).toMatchObject({ reencrypted: 0, isFinished: true });
    expect(await secretsOf(open([b, a]), owner)).toEqual([key]);
    expect(await rotate(open([b, a]))).toMatchObject({ reencrypted: 1, isFinished: true });
    expect(await secretsOf(without, owner)).toEqual([key]);
  });

  it('that are all undecryptable prevent the rotation until the loss is accepted', async () => {
    const before = open([a]);
    await assertCanary(before);
    await storeKey(open([fernetKey()]), await createOwner());
    const ring = open([b, a]);
    expect(await rotate(ring)).toMatchObject({ failed: [], isFinished: false });
    await expect(assertCanary(open([b]))).rejects.toThrow('does not fit');
    expect(await rotate(ring, { acceptLoss: true })).toMatchObject({ isFinished: true });
    await assertCanary(open([b]));
  });

  it('are not lost by concurrent adds and deletes of the same owners', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owners = await Promise.all(Array.from({ length: 4 }, createOwner));
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
    // Two processes during the change of settings: one encrypts with the old key, one with the new key.
    const writers = [open([a, b]), open([b, a])];
    const state = { isOver: false };
    const writing = writers.map(async (context) => {
      for (let round = 0; !state.isOver || round < 2; round += 1) {
        for (const owner of owners) {
          const ownKeys = expected.get(owner);
          const added = await storeKey(context, owner);
          ownKeys?.set(added.id, added.key);
          const [deletedId = ''] = ownKeys?.keys() ?? [];
          ownKeys?.delete(deletedId);
          await deleteKey(context, owner, deletedId);
        }
      }
    });
    const reports = [await rotate(ring), await rotate(ring)];
    state.isOver = true;
    await Promise.all(writing);
    expect(reports.flatMap(({ failed }) => failed)).toEqual([]);
    expect(await rotate(ring)).toMatchObject({ failed: [], skipped: [], isFinished: true });
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

  it('are rotated by the next command after a killed one', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owners = await Promise.all(Array.from({ length: 6 }, createOwner));
    const secrets = new Map<Owner, string>();
    for (const owner of owners) secrets.set(owner, (await storeKey(before, owner)).key);
    const relay = await createRelay(stack.keycloak.url);
    try {
      const child = spawn(process.execPath, [MAIN, 'keys', 'rotate'], {
        cwd: import.meta.dirname,
        env: toEnvironment({
          ...fixture.settings,
          vaultRealm,
          encryptionKeys: [b, a],
          keycloakUrl: relay.url,
        }),
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
    // Postgres releases the lock of the killed process when its connection closes.
    await until(() =>
      rotate(ring).then(
        ({ isFinished }) => isFinished,
        () => false,
      ),
    );
    const audits = await Promise.all(owners.map((owner) => readAuditTrail(ring, owner)));
    const counts = audits.map((rows) => rows.filter(({ action }) => action === 'key.resealed').length);
    expect(counts).toEqual([1, 1, 1, 1, 1, 1]);
    for (const owner of owners) {
      expect(await ringIndexesOf(ring, owner)).toEqual([0]);
      expect(await secretsOf(ring, owner)).toEqual([secrets.get(owner)]);
    }
  }, 60_000);

  it('that cannot be written are named, the others are re-encrypted, and the old key is still required', async () => {
    const before = open([a]);
    await assertCanary(before);
    const owners = await Promise.all(Array.from({ length: 3 }, createOwner));
    for (const owner of owners) await storeKey(before, owner);
    const [failing] = owners;
    const failingId = (await before.vault.findRecord(failing ?? randomOwner(), null))?.id ?? '';
    const relay = await createRelay(stack.keycloak.url);
    relay.before((call) =>
      call.method === 'PUT' && call.url?.endsWith(failingId) === true ? { answer: 403 } : 'pass',
    );
    const report = await rotate(open([b, a], { keycloakUrl: relay.url })).finally(() => relay.close());
    expect(report).toMatchObject({
      reencrypted: 2,
      failed: [{ pool: `${failing}, openai`, why: 'keycloak_unavailable' }],
      isFinished: false,
    });
    await expect(assertCanary({ ...before, keyring: createKeyring([b]) })).rejects.toThrow('does not fit');
    expect(await rotate(open([b, a]))).toMatchObject({ reencrypted: 1, isFinished: true });
  });
});

async function deleteKey(context: KeyAdminContext, owner: Owner, id: string): Promise<void> {
  const change = { owner, ownerName: 'a-user', provider: 'openai', requestId: 'test' };
  await changePool(context, { ...change, action: 'key.deleted' }, (pool) => {
    const kept = pool.keys.filter((key) => key.id !== id).map((key) => key.value);
    return { values: [...kept, ...pool.unreadable], keyIds: [id] };
  });
}
