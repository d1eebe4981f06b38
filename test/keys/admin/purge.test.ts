import { beforeEach, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { KeyAdminContext } from '../../../src/cli/context.ts';
import { purgeVault, type PurgeOptions } from '../../../src/keys/admin/purge.ts';
import { createOwnerRemoval } from '../../../src/keys/admin/remove-owner.ts';
import { writeTestStatus } from '../../../src/keys/key-status-store.ts';
import { readVaultIndex } from '../../../src/keys/vault-index-store.ts';
import { getUserId, type Owner } from '../../../src/lib/owner.ts';
import { adminClient, stack } from '../../support/stack.ts';
import { createRelay } from '../keycloak-relay.ts';
import {
  readAuditTrail,
  createRealmUser,
  createFixture,
  editOwnerRecord,
  randomOwner,
  readStoredPool,
  storeKey,
} from './fixture.ts';

const home = createFixture();
let custody: KeyAdminContext;

beforeEach(() => {
  custody = home.open();
});

const purge = (options: Partial<PurgeOptions> = {}, on = custody) =>
  purgeVault(on, { yes: false, evenMost: false, ...options });

/** Three people with keys, of whom the first is then deleted. */
async function oneOfThreeGone(): Promise<{ gone: Owner; goneName: string; others: Owner[] }> {
  const people = [
    await createRealmUser(home.realms),
    await createRealmUser(home.realms),
    await createRealmUser(home.realms),
  ];
  for (const { owner, username } of people) await storeKey(custody, owner, { ownerName: username });
  const [first] = people;
  if (first === undefined) throw new Error('nobody was created');
  await storeKey(custody, first.owner, { provider: 'openrouter', ownerName: first.username });
  await (await adminClient(home.realms.people)).users.del({ id: first.id });
  return { gone: first.owner, goneName: first.username, others: people.slice(1).map(({ owner }) => owner) };
}

const addServer = (owner: Owner) =>
  custody.database.withOwner(owner, (sql) =>
    sql.run(
      `INSERT INTO user_execution_servers (id, user_id, name, server_type, connection_config)
       VALUES (gen_random_uuid(), $1, 'x', 'local', '{}')`,
      [getUserId(owner)],
    ),
  );
const countServers = (owner: Owner) =>
  custody.database.withOwner(owner, (sql) => sql.run('SELECT FROM user_execution_servers'));

/** What somebody has run, who may have nothing else. */
const addRun = (owner: Owner) =>
  custody.database.withOwner(owner, async (sql) => {
    const id = randomUUID();
    await sql.run(
      `INSERT INTO runs (id, owner, server_id, server_name, server_type, server_versions, code_sha256, sealed,
         status, holder, lease_until)
       VALUES ($1, $2, 'a', 'A', 'ssh', '[1]', 'x', 'x', 'queued', 'one', now())`,
      [id, owner],
    );
    await sql.run(
      `INSERT INTO run_events (run_id, first_seq, last_seq, owner, stdout_bytes, stderr_bytes, sealed)
       VALUES ($1, 1, 1, $2, 0, 0, 'x')`,
      [id, owner],
    );
  });
const countRuns = (owner: Owner) =>
  custody.database.withOwner(
    owner,
    async (sql) => (await sql.run('SELECT FROM runs')) + (await sql.run('SELECT FROM run_events')),
  );

const stateOf = (owner: Owner) =>
  custody.database.withOwner(owner, async (sql) => ({
    ...(await readVaultIndex(sql, owner)),
    facts: (await sql.rows(z.object({}), 'SELECT FROM provider_key_facts')).length,
  }));

describe('purging the vault', () => {
  it('lists the records of people who are no more, and deletes none of them unasked', async () => {
    const { gone, goneName, others } = await oneOfThreeGone();
    expect(await purge()).toEqual({
      ...{ owners: 3, orphans: [{ owner: gone, ownerName: goneName, keys: 2 }], isRefused: false },
      ...{ removed: [], kept: [], failed: [] },
    });
    for (const owner of [gone, ...others])
      expect((await readStoredPool(custody, owner)).keys).toHaveLength(1);
  });

  it('deletes, when told to, their records and all that is known of their keys, and tells it in the trail', async () => {
    const { gone, others } = await oneOfThreeGone();
    const keyId = (await readStoredPool(custody, gone)).keys[0]?.id ?? '';
    await custody.database.withOwner(gone, (sql) =>
      writeTestStatus(sql, [gone, 'openai', keyId], 'valid', 'It works.'),
    );
    const before = await stateOf(gone);
    expect(before).toMatchObject({ facts: 1, vaultId: expect.any(String) });
    expect(await purge({ yes: true })).toMatchObject({ removed: [gone], kept: [], failed: [] });
    expect(await custody.vault.findRecord(gone, before.vaultId)).toBeUndefined();
    const after = await stateOf(gone);
    expect(after).toMatchObject({ facts: 0, vaultId: null, isBeingWritten: false });
    // Before and after: what others read meanwhile is old.
    expect(after.generation).toBe(before.generation + 2);
    expect((await readAuditTrail(custody, gone)).at(-1)).toEqual({
      actor: 'system:vault-purge',
      action: 'vault.purged',
    });
    for (const owner of others) expect((await readStoredPool(custody, owner)).keys).toHaveLength(1);
    expect(await purge()).toMatchObject({ owners: 2, orphans: [] });
  });

  it('finds and deletes what people who are no more have run, also where they have nothing else', async () => {
    const { gone, others } = await oneOfThreeGone();
    const runsOnly = randomOwner();
    for (const owner of [gone, runsOnly, ...others]) await addRun(owner);
    expect(await purge()).toMatchObject({ owners: 4, orphans: [{ owner: gone }, { owner: runsOnly }] });
    expect(await countRuns(runsOnly)).toBe(2);
    expect(await purge({ yes: true })).toMatchObject({ removed: [gone, runsOnly], failed: [] });
    for (const owner of [gone, runsOnly]) expect(await countRuns(owner)).toBe(0);
    for (const owner of others) expect(await countRuns(owner)).toBe(2);
    expect(await purge()).toMatchObject({ owners: 2, orphans: [] });
  });

  it('finds and deletes the servers of people who are no more, with a vault record or without', async () => {
    const { gone, others } = await oneOfThreeGone();
    const keyless = randomOwner();
    for (const owner of [gone, keyless, ...others]) await addServer(owner);
    expect(await purge()).toMatchObject({
      owners: 4,
      orphans: [
        { owner: gone, keys: 2 },
        { owner: keyless, ownerName: '', keys: 0 },
      ],
    });
    expect(await purge({ yes: true })).toMatchObject({ removed: [gone, keyless], failed: [] });
    for (const owner of [gone, keyless]) {
      expect(await countServers(owner)).toBe(0);
      expect(await readAuditTrail(custody, owner)).toContainEqual({
        actor: 'system:vault-purge',
        action: 'server.deleted',
      });
    }
    for (const owner of others) expect(await countServers(owner)).toBe(1);
    expect(await purge()).toMatchObject({ owners: 2, orphans: [] });
  });

  it('leaves the records of people who are disabled', async () => {
    const { id, owner } = await createRealmUser(home.realms);
    await storeKey(custody, owner);
    await (await adminClient(home.realms.people)).users.update({ id }, { enabled: false });
    expect(await purge({ yes: true, evenMost: true })).toMatchObject({ owners: 1, orphans: [] });
  });

  it('refuses when most owners are missing, as in a realm that was mistyped, unless told even so', async () => {
    const owners = [randomOwner(), randomOwner(), (await createRealmUser(home.realms)).owner];
    for (const owner of owners) await storeKey(custody, owner);
    expect(await purge({ yes: true })).toMatchObject({ owners: 3, isRefused: true, removed: [] });
    for (const owner of owners) expect((await readStoredPool(custody, owner)).keys).toHaveLength(1);
    const report = await purge({ yes: true, evenMost: true });
    expect(report.removed.toSorted()).toEqual(owners.slice(0, 2).toSorted());
    expect((await readStoredPool(custody, owners[2] ?? randomOwner())).keys).toHaveLength(1);
  });

  it('refuses when more than a tenth and more than three are missing, unless told even so', async () => {
    const people = [];
    for (let at = 0; at < 9; at += 1) people.push(await createRealmUser(home.realms));
    const gone = [randomOwner(), randomOwner(), randomOwner()];
    for (const owner of [...people.map((each) => each.owner), ...gone]) await storeKey(custody, owner);
    // Three are few, though they are a quarter.
    expect(await purge({ yes: true })).toMatchObject({ owners: 12, isRefused: false, failed: [] });
    const more = [randomOwner(), randomOwner(), randomOwner(), randomOwner()];
    for (const owner of more) await storeKey(custody, owner);
    expect(await purge({ yes: true })).toMatchObject({ owners: 13, isRefused: true, removed: [] });
    expect((await readStoredPool(custody, more[0] ?? randomOwner())).keys).toHaveLength(1);
    expect((await purge({ yes: true, evenMost: true })).removed).toHaveLength(4);
  }, 60_000);

  it('asks again right before it deletes, and keeps who is there by then', async () => {
    const { gone, goneName } = await oneOfThreeGone();
    const relay = await createRelay(stack.keycloak.url);
    let asked = 0;
    relay.before(({ url }) => {
      if (url?.includes(`/users/${gone.slice(5)}`) === true) asked += 1;
      return 'pass';
    });
    const relayed = home.open({ keycloakUrl: relay.url });
    relay.after(async (call) => {
      if (asked === 1 && call.url?.includes(`/users/${gone.slice(5)}`) === true) {
        const admin = await adminClient();
        await admin.realms.partialImport({
          realm: home.realms.people,
          rep: {
            ifResourceExists: 'FAIL',
            users: [{ id: gone.slice(5), username: goneName, enabled: true }],
          },
        });
      }
      return 'pass' as const;
    });
    const report = await purge({ yes: true }, relayed);
    await relay.close();
    expect(report).toMatchObject({ orphans: [{ owner: gone }], removed: [], kept: [gone] });
    expect(asked).toBe(2);
    expect((await readStoredPool(custody, gone)).keys).toHaveLength(1);
  });

  it('stops when Keycloak does not say who is there, and deletes nothing', async () => {
    const { gone } = await oneOfThreeGone();
    const relay = await createRelay(stack.keycloak.url);
    relay.before(({ url }) =>
      url?.includes(`/${home.realms.people}/users/`) === true ? { answer: 403 } : 'pass',
    );
    const relayed = home.open({ keycloakUrl: relay.url });
    await expect(purge({ yes: true, evenMost: true }, relayed)).rejects.toMatchObject({
      code: 'keycloak_unavailable',
    });
    await relay.close();
    expect((await readStoredPool(custody, gone)).keys).toHaveLength(1);
  });

  it('names what it could not delete, and the trail says that it is unconfirmed', async () => {
    const { gone } = await oneOfThreeGone();
    const relay = await createRelay(stack.keycloak.url);
    relay.before(({ method }) => (method === 'DELETE' ? { answer: 403 } : 'pass'));
    const relayed = home.open({ keycloakUrl: relay.url });
    const report = await purge({ yes: true }, relayed);
    await relay.close();
    expect(report).toMatchObject({ removed: [], failed: [{ owner: gone, why: 'keycloak_unavailable' }] });
    expect((await readAuditTrail(custody, gone)).slice(-2).map(({ action }) => action)).toEqual([
      'vault.purged',
      'vault.purge_unconfirmed',
    ]);
    expect(await stateOf(gone)).toMatchObject({ vaultId: expect.any(String), isBeingWritten: false });
    expect((await readStoredPool(custody, gone)).keys).toHaveLength(1);
  });
});

describe('removing an owner', () => {
  it('never deletes a record that names another owner', async () => {
    const owner = randomOwner();
    await storeKey(custody, owner);
    await editOwnerRecord(custody, owner, { owner: [randomOwner()] });
    const removal = createOwnerRemoval({ ...custody, recordIsUser: false });
    await expect(removal.removeOwner(owner, 'r1', 'admin')).rejects.toMatchObject({
      code: 'key_undecryptable',
    });
    const admin = await adminClient(home.settings.vaultRealm);
    expect(await admin.users.find({ username: `user.${owner.slice(5)}`, exact: true })).toHaveLength(1);
  });

  it('forgets an owner who has no record, and says so', async () => {
    const owner = randomOwner();
    await storeKey(custody, owner);
    const { vaultId } = await stateOf(owner);
    await (await adminClient(home.settings.vaultRealm)).users.del({ id: vaultId ?? '' });
    const removal = createOwnerRemoval({ ...custody, recordIsUser: false });
    expect(await removal.removeOwner(owner, 'r1', 'admin')).toBe('absent');
    expect(await stateOf(owner)).toMatchObject({ vaultId: null, isBeingWritten: false });
  });

  it('waits for whoever is writing the same owner’s keys', async () => {
    const owner = randomOwner();
    await storeKey(custody, owner);
    const other = home.open();
    const order: string[] = [];
    const [held, release] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
    const writing = other.lock.runExclusive(owner, async () => {
      held.resolve(undefined);
      await release.promise;
      order.push('writer');
    });
    await held.promise;
    const removal = createOwnerRemoval({ ...custody, recordIsUser: false });
    const removing = removal.removeOwner(owner, 'r1', 'admin', () => {
      order.push('removal');
      return Promise.resolve(true);
    });
    release.resolve(undefined);
    expect(await removing).toBe('removed');
    await writing;
    expect(order).toEqual(['writer', 'removal']);
  });

  it('never deletes a person where people are their own records', async () => {
    const own = home.open({ vaultRealm: home.realms.people });
    const { id, owner } = await createRealmUser(home.realms);
    await storeKey(own, owner);
    const removal = createOwnerRemoval({ ...own, recordIsUser: true });
    expect(await removal.removeOwner(owner, 'r1', 'admin')).toBe('kept');
    expect((await readStoredPool(own, owner)).keys).toHaveLength(1);
    const admin = await adminClient(home.realms.people);
    await admin.users.del({ id });
    expect(await removal.removeOwner(owner, 'r2', 'admin')).toBe('absent');
    expect(await purge({ yes: true, evenMost: true }, own)).toMatchObject({ owners: 0, orphans: [] });
    expect(await stateOf(owner)).toMatchObject({ vaultId: null });
  });
});
