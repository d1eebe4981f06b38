import { describe, expect, it } from '@jest/globals';
import type { KeyAdminContext } from '../../../src/cli/context.ts';
import { moveVault, type MoveOptions } from '../../../src/keys/admin/move.ts';
import { assertCanary } from '../../../src/keys/admin/canary.ts';
import { rotateKeys } from '../../../src/keys/admin/rotate.ts';
import { readVaultIndex } from '../../../src/keys/vault-index-store.ts';
import { decryptKey } from '../../../src/keys/stored-key.ts';
import { assertVaultLocation } from '../../../src/keys/vault-location.ts';
import { createDatabase as openDatabase } from '../../../src/lib/postgres/database.ts';
import { createLog } from '../../../src/lib/log.ts';
import type { Owner } from '../../../src/lib/owner.ts';
import { fernetKey } from '../../support/app.ts';
import { createDatabase } from '../../support/database.ts';
import { adminClient, stack } from '../../support/stack.ts';
import { createRelay } from '../keycloak-relay.ts';
import {
  createRealmUser,
  createFixture,
  editOwnerRecord,
  randomOwner,
  readStoredPool,
  storeKey,
  type FixtureSettings,
} from './fixture.ts';

const fixture = createFixture(2);

type RealmChoice = 'vault' | 'other vault' | 'main';
const realmOf = (realm: RealmChoice) =>
  ({ vault: fixture.realms.vaults[0], 'other vault': fixture.realms.vaults[1], main: fixture.realms.main })[
    realm
  ] ?? '';

const openAt = (realm: RealmChoice, change: Partial<FixtureSettings> = {}) =>
  fixture.open({ vaultRealm: realmOf(realm), ...change });

const move = (to: KeyAdminContext, options: Partial<MoveOptions> = {}) =>
  moveVault(to, {
    from: { id: 'ops-center-vault', secret: fixture.realms.secret },
    cleanUp: undefined,
    dryRun: false,
    onProgress: () => undefined,
    ...options,
  });

const keyIds = async (context: KeyAdminContext, owner: Owner, provider = 'openai') =>
  (await readStoredPool(context, owner, provider)).keys.map(({ id }) => id);

/** Writes the vault location, as the first start of the app does. */
async function startAt(realm: RealmChoice): Promise<KeyAdminContext> {
  const context = openAt(realm);
  await assertVaultLocation(context.database, context.vaultLocation);
  return context;
}

describe.each<[RealmChoice, RealmChoice]>([
  ['vault', 'other vault'],
  ['main', 'vault'],
  ['vault', 'main'],
])('moving the keys from the %s realm to the %s realm', (from, to) => {
  it('copies all keys unchanged, writes the new location, and removes only the old values', async () => {
    const old = await startAt(from);
    const [one, two, empty] = [
      await createRealmUser(fixture.realms, { favourite: ['blue'], byok_openai_key: ['of the old layout'] }),
      await createRealmUser(fixture.realms),
      await createRealmUser(fixture.realms),
    ];
    const stored = [
      await storeKey(old, one.owner, { ownerName: one.username }),
      await storeKey(old, one.owner, { ownerName: one.username }),
    ];
    await storeKey(old, one.owner, { provider: 'openrouter', ownerName: one.username });
    await storeKey(old, two.owner, { ownerName: two.username });
    await editOwnerRecord(old, two.owner, { byok_custom: ['no key at all'] });
    await storeKey(old, empty.owner);
    await editOwnerRecord(old, empty.owner, { byok_openai: [] });
    const before = await readStoredPool(old, one.owner);
    const admin = await adminClient(fixture.realms.main);
    const userBefore = await admin.users.findOne({ id: one.id });

    const target = openAt(to);
    const report = await move(target);
    expect(report).toMatchObject({
      ...{ copied: 2, blockers: [], isMoved: true, notRemoved: [] },
      ...{ from: { realm: realmOf(from) }, to: { realm: realmOf(to) } },
    });
    expect(await readStoredPool(target, one.owner)).toEqual(before);
    const { keys } = await readStoredPool(target, one.owner);
    const secrets = keys.map(
      (key) => decryptKey(target.keyring, { owner: one.owner, provider: 'openai' }, key)?.secret,
    );
    expect(secrets.toSorted()).toEqual(stored.map(({ key }) => key).toSorted());
    expect(await keyIds(target, one.owner, 'openrouter')).toHaveLength(1);
    expect((await readStoredPool(target, two.owner, 'custom')).unreadable).toEqual(['no key at all']);

    await assertVaultLocation(target.database, target.vaultLocation);
    await expect(assertVaultLocation(old.database, old.vaultLocation)).rejects.toThrow(
      'Set KEYCLOAK_VAULT_REALM back',
    );
    for (const { owner } of [one, two, empty]) expect(await keyIds(old, owner)).toEqual([]);
    if (from === 'vault') {
      const vault = await adminClient(realmOf('vault'));
      expect(await vault.users.find({ max: 10 })).toEqual([]);
    }
    const userAfter = await admin.users.findOne({ id: one.id });
    const withoutKeys = (user: typeof userAfter) => {
      const {
        byok_openai: _a,
        byok_openrouter: _b,
        ...others
      } = (user?.attributes ?? {}) as Record<string, unknown>;
      return { ...user, attributes: others };
    };
    expect(withoutKeys(userAfter)).toEqual(withoutKeys(userBefore));
    // The vault index has the ids of the new records.
    const record = await target.vault.findRecord(one.owner, null);
    const entry = await target.database.withOwner(one.owner, (sql) => readVaultIndex(sql, one.owner));
    expect(entry.vaultId).toBe(record?.id);
    expect(
      await target.database.withOwner(empty.owner, (sql) => readVaultIndex(sql, empty.owner)),
    ).toMatchObject({
      vaultId: from === 'main' ? empty.id : null,
    });
  }, 60_000);

  it('changes nothing in a dry run and reports what it would do', async () => {
    const old = await startAt(from);
    const { owner } = await createRealmUser(fixture.realms);
    await storeKey(old, owner);
    const target = openAt(to);
    expect(await move(target, { dryRun: true })).toMatchObject({ copied: 1, isMoved: false, removed: 0 });
    expect(await keyIds(target, owner)).toEqual([]);
    expect(await keyIds(old, owner)).toHaveLength(1);
    await assertVaultLocation(old.database, old.vaultLocation);
  });
});

describe('moving the vault', () => {
  it('is refused while an app is connected to the database', async () => {
    const old = await startAt('vault');
    const owner = randomOwner();
    await storeKey(old, owner);
    const app = openDatabase({
      ...{
        url: fixture.settings.databaseUrl,
        max: 1,
        applicationName: 'ops-center',
        log: createLog('silent'),
      },
    });
    await app.run('SELECT 1');
    await expect(move(openAt('other vault'))).rejects.toThrow('The app is running');
    await app.close();
    expect(await move(openAt('other vault'))).toMatchObject({ isMoved: true });
  });

  it('prevents the start of processes while it runs', async () => {
    const old = await startAt('vault');
    await storeKey(old, randomOwner());
    let started: Promise<unknown> | undefined;
    await move(openAt('other vault'), {
      onProgress: ({ step }) => {
        if (step === 'copying')
          started ??= assertVaultLocation(old.database, old.vaultLocation).catch((error: unknown) => error);
      },
    });
    // The start waited and then read the new location.
    expect(String(await started)).toContain(`Set KEYCLOAK_VAULT_REALM back to "${realmOf('other vault')}"`);
  });

  it('can be repeated after an interruption during copying, and does not restore keys deleted since', async () => {
    const old = await startAt('vault');
    const owners = [randomOwner(), randomOwner(), randomOwner()];
    for (const owner of owners) await storeKey(old, owner);
    const [one = randomOwner(), two = randomOwner()] = owners;
    await storeKey(old, one, { provider: 'openrouter' });
    let copied = 0;
    const interrupted = move(openAt('other vault'), {
      onProgress: () => {
        copied += 1;
        if (copied === 3) throw new Error('interrupted');
      },
    });
    await expect(interrupted).rejects.toThrow('interrupted');
    await assertVaultLocation(old.database, old.vaultLocation);
    await editOwnerRecord(old, one, { byok_openrouter: [] });
    await editOwnerRecord(old, two, { byok_openai: [] });
    const target = openAt('other vault');
    expect(await move(target)).toMatchObject({ copied: 2, empty: 1, isMoved: true, notRemoved: [] });
    expect(await keyIds(target, one)).toHaveLength(1);
    expect(await keyIds(target, one, 'openrouter')).toEqual([]);
    expect(await keyIds(target, two)).toEqual([]);
  });

  it('leaves the rest to --clean-up after an interruption during removal, which removes only moved records', async () => {
    const old = await startAt('vault');
    const [one, two] = [randomOwner(), randomOwner()];
    for (const owner of [one, two]) await storeKey(old, owner);
    const target = openAt('other vault');
    const interrupted = move(target, {
      onProgress: ({ step }) => {
        if (step === 'removing') throw new Error('interrupted');
      },
    });
    await expect(interrupted).rejects.toThrow('interrupted');
    const vault = await adminClient(realmOf('vault'));
    expect(await vault.users.find({ max: 10 })).toHaveLength(1);
    await expect(move(target)).rejects.toThrow('there is nothing to move');
    await expect(move(target, { cleanUp: realmOf('other vault') })).rejects.toThrow('--clean-up needs');
    // A record whose owner has no new record is not removed.
    await vault.users.create({
      username: 'user.stranger',
      attributes: { owner: ['user:stranger'], byok_openai: ['a value'] },
    });
    const report = await move(target, { cleanUp: realmOf('vault') });
    expect(report).toMatchObject({
      removed: 1,
      notRemoved: [{ record: 'user:stranger', why: 'the owner has no record in the new location' }],
    });
    expect((await vault.users.find({ max: 10 })).map(({ username }) => username)).toEqual(['user.stranger']);
    for (const owner of [one, two]) expect(await keyIds(target, owner)).toHaveLength(1);
  });

  it('keeps and names an old record with keys that the new record lacks', async () => {
    const old = await startAt('vault');
    const owners = [randomOwner(), randomOwner(), randomOwner(), randomOwner()];
    for (const owner of owners) await storeKey(old, owner);
    const target = openAt('other vault');
    const interrupted = move(target, {
      onProgress: ({ step }) => {
        if (step === 'removing') throw new Error('interrupted');
      },
    });
    await expect(interrupted).rejects.toThrow('interrupted');
    const remaining: Owner[] = [];
    for (const owner of owners) if ((await keyIds(old, owner)).length > 0) remaining.push(owner);
    const [withAddedKey, withUnreadableValue, rotated = randomOwner()] = remaining;
    if (withAddedKey === undefined || withUnreadableValue === undefined)
      throw new Error('too many were removed');
    const values = (await readStoredPool(old, withAddedKey)).keys.map(({ value }) => value);
    const another = { ...(JSON.parse(values[0] ?? '') as object), id: 'later' };
    await editOwnerRecord(old, withAddedKey, { byok_openai: [...values, JSON.stringify(another)] });
    await editOwnerRecord(old, withUnreadableValue, { byok_custom: ['a value'] });
    // Re-encrypted in the new location: that is the same key.
    const ring = openAt('other vault', { encryptionKeys: [fernetKey(), ...fixture.settings.encryptionKeys] });
    await assertCanary(openAt('other vault'));
    await rotateKeys(ring, { acceptLoss: false, onProgress: () => undefined });
    const why = 'it holds keys that the new location lacks';
    const report = await move(ring, { cleanUp: realmOf('vault') });
    expect(report.removed).toBe(1);
    expect(
      report.notRemoved.toSorted(
        (a, b) => remaining.indexOf(a.record as Owner) - remaining.indexOf(b.record as Owner),
      ),
    ).toEqual([
      { record: withAddedKey, why },
      { record: withUnreadableValue, why },
    ]);
    expect(await keyIds(old, withAddedKey)).toHaveLength(2);
    expect(await keyIds(old, rotated)).toEqual([]);
    expect(await keyIds(target, rotated)).toHaveLength(1);
  }, 60_000);

  it('moves nothing when a record cannot be copied, and names the record', async () => {
    const old = await startAt('vault');
    const [failing, copyable, deleted] = [
      await createRealmUser(fixture.realms),
      await createRealmUser(fixture.realms),
      randomOwner(),
    ];
    for (const owner of [failing.owner, copyable.owner, deleted]) await storeKey(old, owner);
    const relay = await createRelay(stack.keycloak.url);
    relay.before(({ method, url }) =>
      method === 'PUT' && url?.endsWith(failing.id) === true ? { answer: 403 } : 'pass',
    );
    const report = await move(openAt('main', { keycloakUrl: relay.url })).finally(() => relay.close());
    expect(report).toMatchObject({ isMoved: false, removed: 0 });
    expect(report.blockers.toSorted((a, b) => a.why.length - b.why.length)).toEqual([
      { record: failing.owner, why: 'keycloak_unavailable' },
      { record: deleted, why: expect.stringContaining('Keycloak has no such user') },
    ]);
    await assertVaultLocation(old.database, old.vaultLocation);
    for (const owner of [failing.owner, copyable.owner, deleted])
      expect(await keyIds(old, owner)).toHaveLength(1);
  });

  it('is blocked by records that name no owner or another owner', async () => {
    const old = await startAt('vault');
    const [one, two, three] = [randomOwner(), randomOwner(), randomOwner()];
    for (const owner of [one, two, three]) await storeKey(old, owner);
    const idOf = async (owner: Owner) => (await old.vault.findRecord(owner, null))?.id ?? '';
    const [first, second] = [await idOf(one), await idOf(two)];
    await editOwnerRecord(old, one, { owner: [] });
    await editOwnerRecord(old, two, { owner: [three] });
    const report = await move(openAt('other vault'));
    expect(report.isMoved).toBe(false);
    expect(report.blockers.toSorted((a, b) => a.why.length - b.why.length)).toEqual([
      { record: first, why: 'it names no owner' },
      { record: second, why: `it names ${three}, which has another record` },
    ]);
  });

  it('is blocked by keys in the new location that would become active', async () => {
    const old = await startAt('vault');
    const [owner, otherOwner] = [randomOwner(), randomOwner()];
    await storeKey(old, owner);
    const target = openAt('other vault');
    await (
      await adminClient(realmOf('other vault'))
    ).users.create({
      username: `user.${otherOwner.slice(5)}`,
      attributes: { owner: [otherOwner], byok_openai: ['a value'] },
    });
    for (const dryRun of [true, false]) {
      const report = await move(target, { dryRun });
      expect(report).toMatchObject({ isMoved: false, blockers: [{ record: otherOwner }] });
    }
    await assertVaultLocation(old.database, old.vaultLocation);
  });

  it('is refused when there is nothing to move, and when the main realm has changed', async () => {
    await startAt('vault');
    await expect(move(openAt('vault'))).rejects.toThrow('there is nothing to move');
    const [main, database] = [openAt('main'), await createDatabase()];
    const other = fixture.open({ databaseUrl: database.appUrl, vaultRealm: fixture.realms.main });
    await assertVaultLocation(other.database, { realm: main.vaultLocation.realm, recordIsUser: false });
    await expect(move(other)).rejects.toThrow('Set KEYCLOAK_REALM back');
  });
});
