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
import { adminClient, createDatabase, stack } from '../../support/stack.ts';
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

const home = createFixture(2);

type Place = 'own' | 'other' | 'people';
const realmOf = (place: Place) =>
  ({ own: home.realms.vaults[0], other: home.realms.vaults[1], people: home.realms.people })[place] ?? '';

const at = (place: Place, change: Partial<FixtureSettings> = {}) =>
  home.open({ vaultRealm: realmOf(place), ...change });

const move = (to: KeyAdminContext, options: Partial<MoveOptions> = {}) =>
  moveVault(to, {
    from: { id: 'ops-center-vault', secret: home.realms.secret },
    cleanUp: undefined,
    dryRun: false,
    onProgress: () => undefined,
    ...options,
  });

const ids = async (custody: KeyAdminContext, owner: Owner, provider = 'openai') =>
  (await readStoredPool(custody, owner, provider)).keys.map(({ id }) => id);

/** Starts keeping keys in a place, as the first start of the app does. */
async function begin(place: Place): Promise<KeyAdminContext> {
  const custody = at(place);
  await assertVaultLocation(custody.database, custody.vaultLocation);
  return custody;
}

describe.each<[Place, Place]>([
  ['own', 'other'],
  ['people', 'own'],
  ['own', 'people'],
])('moving the vault from %s to %s', (from, to) => {
  it('takes all keys along as they are, lets the new place count, and removes the old values alone', async () => {
    const old = await begin(from);
    const [one, two, empty] = [
      await createRealmUser(home.realms, { favourite: ['blue'], byok_openai_key: ['of the old layout'] }),
      await createRealmUser(home.realms),
      await createRealmUser(home.realms),
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
    const admin = await adminClient(home.realms.people);
    const person = await admin.users.findOne({ id: one.id });

    const target = at(to);
    const report = await move(target);
    expect(report).toMatchObject({
      ...{ copied: 2, stopping: [], isMoved: true, notRemoved: [] },
      ...{ from: { realm: realmOf(from) }, to: { realm: realmOf(to) } },
    });
    expect(await readStoredPool(target, one.owner)).toEqual(before);
    const { keys } = await readStoredPool(target, one.owner);
    const secrets = keys.map(
      (key) => decryptKey(target.keyring, { owner: one.owner, provider: 'openai' }, key)?.secret,
    );
    expect(secrets.toSorted()).toEqual(stored.map(({ key }) => key).toSorted());
    expect(await ids(target, one.owner, 'openrouter')).toHaveLength(1);
    expect((await readStoredPool(target, two.owner, 'custom')).unreadable).toEqual(['no key at all']);

    await assertVaultLocation(target.database, target.vaultLocation);
    await expect(assertVaultLocation(old.database, old.vaultLocation)).rejects.toThrow(
      'Set KEYCLOAK_VAULT_REALM back',
    );
    for (const { owner } of [one, two, empty]) expect(await ids(old, owner)).toEqual([]);
    if (from === 'own') {
      const vault = await adminClient(realmOf('own'));
      expect(await vault.users.find({ max: 10 })).toEqual([]);
    }
    const now = await admin.users.findOne({ id: one.id });
    const rest = (user: typeof now) => {
      const {
        byok_openai: _a,
        byok_openrouter: _b,
        ...others
      } = (user?.attributes ?? {}) as Record<string, unknown>;
      return { ...user, attributes: others };
    };
    expect(rest(now)).toEqual(rest(person));
    // The database knows where the records lie now.
    const record = await target.vault.findRecord(one.owner, null);
    const known = await target.database.withOwner(one.owner, (sql) => readVaultIndex(sql, one.owner));
    expect(known.vaultId).toBe(record?.id);
    expect(
      await target.database.withOwner(empty.owner, (sql) => readVaultIndex(sql, empty.owner)),
    ).toMatchObject({
      vaultId: from === 'people' ? empty.id : null,
    });
  }, 60_000);

  it('changes nothing in a dry run and says what it would do', async () => {
    const old = await begin(from);
    const { owner } = await createRealmUser(home.realms);
    await storeKey(old, owner);
    const target = at(to);
    expect(await move(target, { dryRun: true })).toMatchObject({ copied: 1, isMoved: false, removed: 0 });
    expect(await ids(target, owner)).toEqual([]);
    expect(await ids(old, owner)).toHaveLength(1);
    await assertVaultLocation(old.database, old.vaultLocation);
  });
});

describe('moving the vault', () => {
  it('is refused while an app is connected to the database', async () => {
    const old = await begin('own');
    const owner = randomOwner();
    await storeKey(old, owner);
    const app = openDatabase({
      ...{ url: home.settings.databaseUrl, max: 1, applicationName: 'ops-center', log: createLog('silent') },
    });
    await app.run('SELECT 1');
    await expect(move(at('other'))).rejects.toThrow('The app is running');
    await app.close();
    expect(await move(at('other'))).toMatchObject({ isMoved: true });
  });

  it('keeps processes from starting while it is at work', async () => {
    const old = await begin('own');
    await storeKey(old, randomOwner());
    let started: Promise<unknown> | undefined;
    await move(at('other'), {
      onProgress: ({ step }) => {
        if (step === 'copying')
          started ??= assertVaultLocation(old.database, old.vaultLocation).catch((error: unknown) => error);
      },
    });
    // It waited, and found the new place.
    expect(String(await started)).toContain(`Set KEYCLOAK_VAULT_REALM back to "${realmOf('other')}"`);
  });

  it('that is cut off in the copying is run again, and what was deleted since does not come back', async () => {
    const old = await begin('own');
    const owners = [randomOwner(), randomOwner(), randomOwner()];
    for (const owner of owners) await storeKey(old, owner);
    const [one = randomOwner(), two = randomOwner()] = owners;
    await storeKey(old, one, { provider: 'openrouter' });
    let copied = 0;
    const cutOff = move(at('other'), {
      onProgress: () => {
        copied += 1;
        if (copied === 3) throw new Error('the power went out');
      },
    });
    await expect(cutOff).rejects.toThrow('the power went out');
    await assertVaultLocation(old.database, old.vaultLocation);
    await editOwnerRecord(old, one, { byok_openrouter: [] });
    await editOwnerRecord(old, two, { byok_openai: [] });
    const target = at('other');
    expect(await move(target)).toMatchObject({ copied: 2, empty: 1, isMoved: true, notRemoved: [] });
    expect(await ids(target, one)).toHaveLength(1);
    expect(await ids(target, one, 'openrouter')).toEqual([]);
    expect(await ids(target, two)).toEqual([]);
  });

  it('that is cut off in the removing leaves the rest to --clean-up, which takes only what is elsewhere now', async () => {
    const old = await begin('own');
    const [one, two] = [randomOwner(), randomOwner()];
    for (const owner of [one, two]) await storeKey(old, owner);
    const target = at('other');
    const cutOff = move(target, {
      onProgress: ({ step }) => {
        if (step === 'removing') throw new Error('the power went out');
      },
    });
    await expect(cutOff).rejects.toThrow('the power went out');
    const vault = await adminClient(realmOf('own'));
    expect(await vault.users.find({ max: 10 })).toHaveLength(1);
    await expect(move(target)).rejects.toThrow('there is nothing to move');
    await expect(move(target, { cleanUp: realmOf('other') })).rejects.toThrow('can be cleaned up');
    // Somebody whose only record is the old one is not cleaned away.
    await vault.users.create({
      username: 'user.stranger',
      attributes: { owner: ['user:stranger'], byok_openai: ['a value'] },
    });
    const report = await move(target, { cleanUp: realmOf('own') });
    expect(report).toMatchObject({
      removed: 1,
      notRemoved: [{ record: 'user:stranger', why: 'the owner has no record in the place that counts' }],
    });
    expect((await vault.users.find({ max: 10 })).map(({ username }) => username)).toEqual(['user.stranger']);
    for (const owner of [one, two]) expect(await ids(target, owner)).toHaveLength(1);
  });

  it('keeps, and names, an old record that holds what the new one lacks', async () => {
    const old = await begin('own');
    const owners = [randomOwner(), randomOwner(), randomOwner(), randomOwner()];
    for (const owner of owners) await storeKey(old, owner);
    const target = at('other');
    const cutOff = move(target, {
      onProgress: ({ step }) => {
        if (step === 'removing') throw new Error('the power went out');
      },
    });
    await expect(cutOff).rejects.toThrow('the power went out');
    const left: Owner[] = [];
    for (const owner of owners) if ((await ids(old, owner)).length > 0) left.push(owner);
    const [added, foreign, rotated = randomOwner()] = left;
    if (added === undefined || foreign === undefined) throw new Error('too many were removed');
    const values = (await readStoredPool(old, added)).keys.map(({ value }) => value);
    const another = { ...(JSON.parse(values[0] ?? '') as object), id: 'later' };
    await editOwnerRecord(old, added, { byok_openai: [...values, JSON.stringify(another)] });
    await editOwnerRecord(old, foreign, { byok_custom: ['a value'] });
    // Sealed anew in the new place, and renamed: that is the same key.
    const ring = at('other', { encryptionKeys: [fernetKey(), ...home.settings.encryptionKeys] });
    await assertCanary(at('other'));
    await rotateKeys(ring, { acceptLoss: false, onProgress: () => undefined });
    const why = 'it holds keys that the new place lacks';
    const report = await move(ring, { cleanUp: realmOf('own') });
    expect(report.removed).toBe(1);
    expect(
      report.notRemoved.toSorted((a, b) => left.indexOf(a.record as Owner) - left.indexOf(b.record as Owner)),
    ).toEqual([
      { record: added, why },
      { record: foreign, why },
    ]);
    expect(await ids(old, added)).toHaveLength(2);
    expect(await ids(old, rotated)).toEqual([]);
    expect(await ids(target, rotated)).toHaveLength(1);
  }, 60_000);

  it('does not move at all when a record cannot be copied, and names it', async () => {
    const old = await begin('own');
    const [stuck, fine, gone] = [
      await createRealmUser(home.realms),
      await createRealmUser(home.realms),
      randomOwner(),
    ];
    for (const owner of [stuck.owner, fine.owner, gone]) await storeKey(old, owner);
    const relay = await createRelay(stack.keycloak.url);
    relay.before(({ method, url }) =>
      method === 'PUT' && url?.endsWith(stuck.id) === true ? { answer: 403 } : 'pass',
    );
    const report = await move(at('people', { keycloakUrl: relay.url })).finally(() => relay.close());
    expect(report).toMatchObject({ isMoved: false, removed: 0 });
    expect(report.blockers.toSorted((a, b) => a.why.length - b.why.length)).toEqual([
      { record: stuck.owner, why: 'keycloak_unavailable' },
      { record: gone, why: expect.stringContaining('Keycloak has no such person') },
    ]);
    await assertVaultLocation(old.database, old.vaultLocation);
    for (const owner of [stuck.owner, fine.owner, gone]) expect(await ids(old, owner)).toHaveLength(1);
  });

  it('is stopped by records that name no owner or another one', async () => {
    const old = await begin('own');
    const [one, two, three] = [randomOwner(), randomOwner(), randomOwner()];
    for (const owner of [one, two, three]) await storeKey(old, owner);
    const idOf = async (owner: Owner) => (await old.vault.findRecord(owner, null))?.id ?? '';
    const [first, second] = [await idOf(one), await idOf(two)];
    await editOwnerRecord(old, one, { owner: [] });
    await editOwnerRecord(old, two, { owner: [three] });
    const report = await move(at('other'));
    expect(report.isMoved).toBe(false);
    expect(report.blockers.toSorted((a, b) => a.why.length - b.why.length)).toEqual([
      { record: first, why: 'it names no owner' },
      { record: second, why: `it names ${three}, whose record is another` },
    ]);
  });

  it('is stopped by keys in the new place that would come to life', async () => {
    const old = await begin('own');
    const [owner, stranger] = [randomOwner(), randomOwner()];
    await storeKey(old, owner);
    const target = at('other');
    await (
      await adminClient(realmOf('other'))
    ).users.create({
      username: `user.${stranger.slice(5)}`,
      attributes: { owner: [stranger], byok_openai: ['a value'] },
    });
    for (const dryRun of [true, false]) {
      const report = await move(target, { dryRun });
      expect(report).toMatchObject({ isMoved: false, stopping: [{ record: stranger }] });
    }
    await assertVaultLocation(old.database, old.vaultLocation);
  });

  it('is refused when there is nothing to move, or when it is the realm of the people that changed', async () => {
    await begin('own');
    await expect(move(at('own'))).rejects.toThrow('there is nothing to move');
    const [people, database] = [at('people'), await createDatabase()];
    const elsewhere = home.open({ databaseUrl: database.appUrl, vaultRealm: home.realms.people });
    await assertVaultLocation(elsewhere.database, { realm: people.vaultLocation.realm, recordIsUser: false });
    await expect(move(elsewhere)).rejects.toThrow('Set KEYCLOAK_REALM back');
  });
});
