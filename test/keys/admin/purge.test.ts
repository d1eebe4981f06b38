import { beforeEach, describe, expect, it } from '@jest/globals';
import { randomBytes, randomUUID } from 'node:crypto';
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

const fixture = createFixture();
let context: KeyAdminContext;

beforeEach(() => {
  context = fixture.open();
});

const purge = (options: Partial<PurgeOptions> = {}, on = context) =>
  purgeVault(on, { yes: false, evenMost: false, ...options });

/** Creates three users with keys and deletes the first user. */
async function deleteOneOfThree(): Promise<{ deleted: Owner; deletedName: string; others: Owner[] }> {
  const users = [
    await createRealmUser(fixture.realms),
    await createRealmUser(fixture.realms),
    await createRealmUser(fixture.realms),
  ];
  for (const { owner, username } of users) await storeKey(context, owner, { ownerName: username });
  const [first] = users;
  if (first === undefined) throw new Error('no user was created');
  await storeKey(context, first.owner, { provider: 'openrouter', ownerName: first.username });
  await (await adminClient(fixture.realms.main)).users.del({ id: first.id });
  return {
    deleted: first.owner,
    deletedName: first.username,
    others: users.slice(1).map(({ owner }) => owner),
  };
}

const addServer = (owner: Owner) =>
  context.database.withOwner(owner, (sql) =>
    sql.run(
      `INSERT INTO user_execution_servers (id, user_id, name, server_type, connection_config)
       VALUES (gen_random_uuid(), $1, 'x', 'local', '{}')`,
      [getUserId(owner)],
    ),
  );
const countServers = (owner: Owner) =>
  context.database.withOwner(owner, (sql) => sql.run('SELECT FROM user_execution_servers'));

/** Adds a run with an event; the owner may have no keys. */
const addRun = (owner: Owner) =>
  context.database.withOwner(owner, async (sql) => {
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
  context.database.withOwner(
    owner,
    async (sql) => (await sql.run('SELECT FROM runs')) + (await sql.run('SELECT FROM run_events')),
  );

/** Adds a request and a refusal to the ledger; the owner may have no keys. */
async function addUsage(owner: Owner): Promise<void> {
  const id = randomUUID();
  const request = {
    ...{ id, owner, time: new Date(), surface: 'chat', provider: 'openai', model: 'm', key_scope: 'system' },
    ...{ outcome: 'done', cost_source: 'unknown', latency_ms: 1, attempts: [] },
  };
  await context.database.run('SELECT record_usage($1)', [JSON.stringify([request])]);
  const refusal = { id, owner, code: 'rate_limited', minute: new Date(), count: 1 };
  await context.database.run('SELECT record_usage_refusals($1)', [JSON.stringify([refusal])]);
}
const countUsage = (owner: Owner) =>
  context.database.withOwner(owner, async (sql) => {
    const counts = [];
    for (const table of ['usage_requests', 'usage_days', 'usage_refusals'])
      counts.push(await sql.run(`SELECT FROM ${table}`));
    return counts;
  });

const readState = (owner: Owner) =>
  context.database.withOwner(owner, async (sql) => ({
    ...(await readVaultIndex(sql, owner)),
    keyStatuses: (await sql.rows(z.object({}), 'SELECT FROM provider_key_facts')).length,
  }));

describe('purging the vault', () => {
  it('lists the records of deleted users, and deletes none without --yes', async () => {
    const { deleted, deletedName, others } = await deleteOneOfThree();
    expect(await purge()).toEqual({
      ...{ owners: 3, orphans: [{ owner: deleted, ownerName: deletedName, keys: 2 }], isRefused: false },
      ...{ removed: [], kept: [], failed: [] },
    });
    for (const owner of [deleted, ...others])
      expect((await readStoredPool(context, owner)).keys).toHaveLength(1);
  });

  it('deletes with --yes their records and key statuses, and writes an audit event', async () => {
    const { deleted, others } = await deleteOneOfThree();
    const keyId = (await readStoredPool(context, deleted)).keys[0]?.id ?? '';
    await context.database.withOwner(deleted, (sql) =>
      writeTestStatus(sql, [deleted, 'openai', keyId], 'valid', 'It works.'),
    );
    const before = await readState(deleted);
    expect(before).toMatchObject({ keyStatuses: 1, vaultId: expect.any(String) });
    expect(await purge({ yes: true })).toMatchObject({ removed: [deleted], kept: [], failed: [] });
    expect(await context.vault.findRecord(deleted, before.vaultId)).toBeUndefined();
    const after = await readState(deleted);
    expect(after).toMatchObject({ keyStatuses: 0, vaultId: null, isBeingWritten: false });
    // Raised before and after the deletion, so that results read meanwhile are not cached.
    expect(after.generation).toBe(before.generation + 2);
    expect((await readAuditTrail(context, deleted)).at(-1)).toEqual({
      actor: 'system:vault-purge',
      action: 'vault.purged',
    });
    for (const owner of others) expect((await readStoredPool(context, owner)).keys).toHaveLength(1);
    expect(await purge()).toMatchObject({ owners: 2, orphans: [] });
  });

  it('finds and deletes the runs of deleted users, even without keys', async () => {
    const { deleted, others } = await deleteOneOfThree();
    const withRunsOnly = randomOwner();
    for (const owner of [deleted, withRunsOnly, ...others]) await addRun(owner);
    expect(await purge()).toMatchObject({
      owners: 4,
      orphans: [{ owner: deleted }, { owner: withRunsOnly }],
    });
    expect(await countRuns(withRunsOnly)).toBe(2);
    expect(await purge({ yes: true })).toMatchObject({ removed: [deleted, withRunsOnly], failed: [] });
    for (const owner of [deleted, withRunsOnly]) expect(await countRuns(owner)).toBe(0);
    for (const owner of others) expect(await countRuns(owner)).toBe(2);
    expect(await purge()).toMatchObject({ owners: 2, orphans: [] });
  });

  it('finds and revokes the tokens of deleted users, even without keys', async () => {
    const { deleted, others } = await deleteOneOfThree();
    const withTokenOnly = randomOwner();
    const addToken = (owner: Owner) =>
      context.database.withOwner(owner, (sql) =>
        sql.run(
          `INSERT INTO personal_tokens (id, owner, token_sha256, name, prefix, scopes)
           VALUES ($1, $2, $3, 'x', 'oc_x', '{chat}')`,
          [randomUUID(), owner, randomBytes(32)],
        ),
      );
    const countTokens = (owner: Owner) =>
      context.database.withOwner(owner, (sql) => sql.run('SELECT FROM personal_tokens'));
    for (const owner of [deleted, withTokenOnly, ...others]) await addToken(owner);
    expect(await purge({ yes: true })).toMatchObject({ removed: [deleted, withTokenOnly], failed: [] });
    for (const owner of [deleted, withTokenOnly]) {
      expect(await countTokens(owner)).toBe(0);
      const event = { actor: 'system:vault-purge', action: 'token.revoked' };
      expect(await readAuditTrail(context, owner)).toContainEqual(event);
    }
    for (const owner of others) expect(await countTokens(owner)).toBe(1);
  });

  it('finds and deletes what is stored about responses of deleted users, even without keys', async () => {
    const { deleted, others } = await deleteOneOfThree();
    const withResponseOnly = randomOwner();
    const response = { id: 'resp_1', provider: 'openai', key_id: 'k', endpoint: null, model: 'm' };
    const count = (owner: Owner) =>
      context.database.withOwner(owner, (sql) => sql.run('SELECT FROM stored_responses'));
    for (const owner of [deleted, withResponseOnly, ...others])
      await context.database.run('SELECT record_response($1)', [JSON.stringify({ ...response, owner })]);
    expect(await purge({ yes: true })).toMatchObject({ removed: [deleted, withResponseOnly], failed: [] });
    for (const owner of [deleted, withResponseOnly]) expect(await count(owner)).toBe(0);
    for (const owner of others) expect(await count(owner)).toBe(1);
  });

  it('finds and deletes the idempotency keys of deleted users, even without keys', async () => {
    const { deleted, others } = await deleteOneOfThree();
    const withRequestOnly = randomOwner();
    for (const owner of [deleted, withRequestOnly, ...others])
      await context.database.withOwner(owner, (sql) =>
        sql.run(
          `INSERT INTO idempotency_keys (owner, route, key_mac, input_mac, object_id, lease_until)
           VALUES ($1, 'r', 'k', 'i', 'o', now())`,
          [owner],
        ),
      );
    const count = (owner: Owner) =>
      context.database.withOwner(owner, (sql) => sql.run('SELECT FROM idempotency_keys'));
    expect(await purge({ yes: true })).toMatchObject({ removed: [deleted, withRequestOnly], failed: [] });
    for (const owner of [deleted, withRequestOnly]) expect(await count(owner)).toBe(0);
    for (const owner of others) expect(await count(owner)).toBe(1);
  });

  it('finds and deletes the introduction of deleted users, even without keys', async () => {
    const { deleted, others } = await deleteOneOfThree();
    const withIntroductionOnly = randomOwner();
    for (const owner of [deleted, withIntroductionOnly, ...others])
      await context.database.withOwner(owner, (sql) =>
        sql.run('INSERT INTO onboarding (owner) VALUES ($1)', [owner]),
      );
    const count = (owner: Owner) =>
      context.database.withOwner(owner, (sql) => sql.run('SELECT FROM onboarding'));
    expect(await purge({ yes: true })).toMatchObject({
      removed: [deleted, withIntroductionOnly],
      failed: [],
    });
    for (const owner of [deleted, withIntroductionOnly]) expect(await count(owner)).toBe(0);
    for (const owner of others) expect(await count(owner)).toBe(1);
  });

  it('finds and deletes the ledger of deleted users, also where nothing else is left of them', async () => {
    const { deleted, others } = await deleteOneOfThree();
    const keyless = randomOwner();
    for (const owner of [deleted, keyless, ...others]) await addUsage(owner);
    expect(await purge()).toMatchObject({ owners: 4, orphans: [{ owner: deleted }, { owner: keyless }] });
    expect(await countUsage(keyless)).toEqual([1, 1, 1]);
    expect(await purge({ yes: true })).toMatchObject({ removed: [deleted, keyless], failed: [] });
    for (const owner of [deleted, keyless]) expect(await countUsage(owner)).toEqual([0, 0, 0]);
    for (const owner of others) expect(await countUsage(owner)).toEqual([1, 1, 1]);
  });

  it('finds and deletes the servers of deleted users, with or without a vault record', async () => {
    const { deleted, others } = await deleteOneOfThree();
    const keyless = randomOwner();
    for (const owner of [deleted, keyless, ...others]) await addServer(owner);
    expect(await purge()).toMatchObject({
      owners: 4,
      orphans: [
        { owner: deleted, keys: 2 },
        { owner: keyless, ownerName: '', keys: 0 },
      ],
    });
    expect(await purge({ yes: true })).toMatchObject({ removed: [deleted, keyless], failed: [] });
    for (const owner of [deleted, keyless]) {
      expect(await countServers(owner)).toBe(0);
      expect(await readAuditTrail(context, owner)).toContainEqual({
        actor: 'system:vault-purge',
        action: 'server.deleted',
      });
    }
    for (const owner of others) expect(await countServers(owner)).toBe(1);
    expect(await purge()).toMatchObject({ owners: 2, orphans: [] });
  });

  it('keeps the records of disabled users', async () => {
    const { id, owner } = await createRealmUser(fixture.realms);
    await storeKey(context, owner);
    await (await adminClient(fixture.realms.main)).users.update({ id }, { enabled: false });
    expect(await purge({ yes: true, evenMost: true })).toMatchObject({ owners: 1, orphans: [] });
  });

  it('refuses when most owners are missing, as with a mistyped realm, unless --even-most is set', async () => {
    const owners = [randomOwner(), randomOwner(), (await createRealmUser(fixture.realms)).owner];
    for (const owner of owners) await storeKey(context, owner);
    expect(await purge({ yes: true })).toMatchObject({ owners: 3, isRefused: true, removed: [] });
    for (const owner of owners) expect((await readStoredPool(context, owner)).keys).toHaveLength(1);
    const report = await purge({ yes: true, evenMost: true });
    expect(report.removed.toSorted()).toEqual(owners.slice(0, 2).toSorted());
    expect((await readStoredPool(context, owners[2] ?? randomOwner())).keys).toHaveLength(1);
  });

  it('refuses when more than a tenth and more than three are missing, unless --even-most is set', async () => {
    const users = [];
    for (let at = 0; at < 9; at += 1) users.push(await createRealmUser(fixture.realms));
    const missing = [randomOwner(), randomOwner(), randomOwner()];
    for (const owner of [...users.map((each) => each.owner), ...missing]) await storeKey(context, owner);
    // Three are allowed, although they are a quarter.
    expect(await purge({ yes: true })).toMatchObject({ owners: 12, isRefused: false, failed: [] });
    const moreMissing = [randomOwner(), randomOwner(), randomOwner(), randomOwner()];
    for (const owner of moreMissing) await storeKey(context, owner);
    expect(await purge({ yes: true })).toMatchObject({ owners: 13, isRefused: true, removed: [] });
    expect((await readStoredPool(context, moreMissing[0] ?? randomOwner())).keys).toHaveLength(1);
    expect((await purge({ yes: true, evenMost: true })).removed).toHaveLength(4);
  }, 60_000);

  it('checks again right before it deletes, and keeps a user who exists by then', async () => {
    const { deleted, deletedName } = await deleteOneOfThree();
    const relay = await createRelay(stack.keycloak.url);
    let userLookups = 0;
    relay.before(({ url }) => {
      if (url?.includes(`/users/${deleted.slice(5)}`) === true) userLookups += 1;
      return 'pass';
    });
    const relayed = fixture.open({ keycloakUrl: relay.url });
    relay.after(async (call) => {
      if (userLookups === 1 && call.url?.includes(`/users/${deleted.slice(5)}`) === true) {
        const admin = await adminClient();
        await admin.realms.partialImport({
          realm: fixture.realms.main,
          rep: {
            ifResourceExists: 'FAIL',
            users: [{ id: deleted.slice(5), username: deletedName, enabled: true }],
          },
        });
      }
      return 'pass' as const;
    });
    const report = await purge({ yes: true }, relayed);
    await relay.close();
    expect(report).toMatchObject({ orphans: [{ owner: deleted }], removed: [], kept: [deleted] });
    expect(userLookups).toBe(2);
    expect((await readStoredPool(context, deleted)).keys).toHaveLength(1);
  });

  it('stops when Keycloak refuses to look up users, and deletes nothing', async () => {
    const { deleted } = await deleteOneOfThree();
    const relay = await createRelay(stack.keycloak.url);
    relay.before(({ url }) =>
      url?.includes(`/${fixture.realms.main}/users/`) === true ? { answer: 403 } : 'pass',
    );
    const relayed = fixture.open({ keycloakUrl: relay.url });
    await expect(purge({ yes: true, evenMost: true }, relayed)).rejects.toMatchObject({
      code: 'keycloak_unavailable',
    });
    await relay.close();
    expect((await readStoredPool(context, deleted)).keys).toHaveLength(1);
  });

  it('names owners that it could not delete, and audits them as unconfirmed', async () => {
    const { deleted } = await deleteOneOfThree();
    const relay = await createRelay(stack.keycloak.url);
    relay.before(({ method }) => (method === 'DELETE' ? { answer: 403 } : 'pass'));
    const relayed = fixture.open({ keycloakUrl: relay.url });
    const report = await purge({ yes: true }, relayed);
    await relay.close();
    expect(report).toMatchObject({ removed: [], failed: [{ owner: deleted, why: 'keycloak_unavailable' }] });
    expect((await readAuditTrail(context, deleted)).slice(-2).map(({ action }) => action)).toEqual([
      'vault.purged',
      'vault.purge_unconfirmed',
    ]);
    expect(await readState(deleted)).toMatchObject({ vaultId: expect.any(String), isBeingWritten: false });
    expect((await readStoredPool(context, deleted)).keys).toHaveLength(1);
  });
});

describe('removing an owner', () => {
  it('never deletes a record that names another owner', async () => {
    const owner = randomOwner();
    await storeKey(context, owner);
    await editOwnerRecord(context, owner, { owner: [randomOwner()] });
    const removal = createOwnerRemoval({ ...context, recordIsUser: false });
    await expect(removal.removeOwner(owner, 'r1', 'admin')).rejects.toMatchObject({
      code: 'key_undecryptable',
    });
    const admin = await adminClient(fixture.settings.vaultRealm);
    expect(await admin.users.find({ username: `user.${owner.slice(5)}`, exact: true })).toHaveLength(1);
  });

  it('removes the vault index of an owner without a record, and returns "absent"', async () => {
    const owner = randomOwner();
    await storeKey(context, owner);
    const { vaultId } = await readState(owner);
    await (await adminClient(fixture.settings.vaultRealm)).users.del({ id: vaultId ?? '' });
    const removal = createOwnerRemoval({ ...context, recordIsUser: false });
    expect(await removal.removeOwner(owner, 'r1', 'admin')).toBe('absent');
    expect(await readState(owner)).toMatchObject({ vaultId: null, isBeingWritten: false });
  });

  it('waits for a running write of the same owner', async () => {
    const owner = randomOwner();
    await storeKey(context, owner);
    const other = fixture.open();
    const order: string[] = [];
    const [held, release] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
    const writing = other.lock.runExclusive(owner, async () => {
      held.resolve(undefined);
      await release.promise;
      order.push('writer');
    });
    await held.promise;
    const removal = createOwnerRemoval({ ...context, recordIsUser: false });
    const removing = removal.removeOwner(owner, 'r1', 'admin', () => {
      order.push('removal');
      return Promise.resolve(true);
    });
    release.resolve(undefined);
    expect(await removing).toBe('removed');
    await writing;
    expect(order).toEqual(['writer', 'removal']);
  });

  it('never deletes a user in the layout with one realm', async () => {
    const oneRealm = fixture.open({ vaultRealm: fixture.realms.main });
    const { id, owner } = await createRealmUser(fixture.realms);
    await storeKey(oneRealm, owner);
    const removal = createOwnerRemoval({ ...oneRealm, recordIsUser: true });
    expect(await removal.removeOwner(owner, 'r1', 'admin')).toBe('kept');
    expect((await readStoredPool(oneRealm, owner)).keys).toHaveLength(1);
    const admin = await adminClient(fixture.realms.main);
    await admin.users.del({ id });
    expect(await removal.removeOwner(owner, 'r2', 'admin')).toBe('absent');
    expect(await purge({ yes: true, evenMost: true }, oneRealm)).toMatchObject({ owners: 0, orphans: [] });
    expect(await readState(owner)).toMatchObject({ vaultId: null });
  });
});
