import { beforeEach, describe, expect, it } from '@jest/globals';
import type { KeyAdminContext } from '../../../src/cli/context.ts';
import { assertCanary } from '../../../src/keys/admin/canary.ts';
import { importLegacyKeys, readLegacyKeys, type ImportReport } from '../../../src/keys/admin/import.ts';
import { writeVaultId } from '../../../src/keys/vault-index-store.ts';
import { decryptKey } from '../../../src/keys/stored-key.ts';
import { createKeyring } from '../../../src/lib/crypto/keyring.ts';
import { fernetKey } from '../../support/app.ts';
import { adminClient } from '../../support/stack.ts';
import { randomKey } from '../instance.ts';
import {
  readAuditTrail,
  createRealmUser,
  createFixture,
  randomOwner,
  readStoredPool,
  storeKey,
} from './fixture.ts';

const fixture = createFixture();
let context: KeyAdminContext;
/** A keyring with the key of the legacy system, which the operator appends to ENCRYPTION_KEY. */
let legacyRing: ReturnType<typeof createKeyring>;
let keys: string[];

const importAll = (options = { dryRun: false }): Promise<ImportReport> =>
  importLegacyKeys(context, { ...options, onProgress: () => undefined });

describe.each(['in a vault realm', 'in one realm'])('importing keys %s', (layout) => {
  const isOneRealm = layout === 'in one realm';

  beforeEach(() => {
    keys = [fernetKey(), fernetKey()];
    const vaultRealm = isOneRealm ? fixture.realms.main : fixture.settings.vaultRealm;
    context = fixture.open({ vaultRealm, encryptionKeys: keys });
    legacyRing = createKeyring(keys.slice(1));
  });

  it('imports key, label, date and endpoint, re-encrypts them and leaves the old attributes unchanged', async () => {
    const [openaiKey, customKey] = [randomKey(), randomKey('any-')];
    const legacy = {
      byok_openai_key: [legacyRing.encrypt(openaiKey)],
      byok_openai_label: [` ${'L'.repeat(130)}`],
      byok_openai_added_date: ['2024-05-06T07:08:09.123456'],
      byok_openai_last_tested: ['2024-05-07T00:00:00'],
      byok_openai_test_status: ['valid'],
      byok_custom_key: [legacyRing.encrypt(customKey)],
      byok_custom_added_date: ['yesterday'],
      byok_custom_endpoint: ['https://93.184.215.14/v1/'],
    };
    const { owner, id, username } = await createRealmUser(fixture.realms, legacy);
    await createRealmUser(fixture.realms);
    const report = await importAll();
    expect(report).toMatchObject({ users: 1, problems: [] });
    expect(report.counts).toMatchObject({ imported: 2, present: 0 });

    const openai = (await readStoredPool(context, owner)).keys;
    expect(openai).toMatchObject([
      {
        ...{ label: 'L'.repeat(120), mask: `sk-…${openaiKey.slice(-4)}`, enabled: true, expiresAt: null },
        ...{ createdAt: '2024-05-06T07:08:09.123Z', endpoint: null },
      },
    ]);
    const custom = (await readStoredPool(context, owner, 'custom')).keys;
    expect(custom).toMatchObject([{ label: null, endpoint: 'https://93.184.215.14/v1' }]);
    expect(Date.now() - Date.parse(custom[0]?.createdAt ?? '')).toBeLessThan(60_000);
    // Encrypted with the first key, so that the key of the legacy system can be removed.
    const first = createKeyring(keys.slice(0, 1));
    const secretOf = (stored: (typeof openai)[number] | undefined, provider: string) =>
      stored && decryptKey(first, { owner, provider }, stored)?.secret;
    expect(secretOf(openai[0], 'openai')).toBe(openaiKey);
    expect(secretOf(custom[0], 'custom')).toBe(customKey);
    const record = await context.vault.findRecord(owner, null);
    if (!isOneRealm)
      expect(record?.representation.attributes).toMatchObject({ owner: [owner], owner_name: [username] });
    const user = await (await adminClient(fixture.realms.main)).users.findOne({ id });
    expect(user?.attributes).toMatchObject({ ...legacy, subscription_tier: ['starter'] });
    expect(await readAuditTrail(context, owner)).toEqual([
      { actor: 'system:keys-import-legacy', action: 'key.imported' },
      { actor: 'system:keys-import-legacy', action: 'key.imported' },
    ]);
  });

  it('can be repeated: the same key with the same endpoint is stored once', async () => {
    const key = randomKey();
    const { owner } = await createRealmUser(fixture.realms, { byok_openai_key: [legacyRing.encrypt(key)] });
    expect((await importAll()).counts).toMatchObject({ imported: 1, present: 0 });
    const before = await readStoredPool(context, owner);
    const again = await importAll();
    expect(again.counts).toMatchObject({ imported: 0, present: 1 });
    expect(again.problems).toEqual([]);
    expect(await readStoredPool(context, owner)).toEqual(before);
  });

  it('never creates a pool of more than ten keys', async () => {
    const { owner, id } = await createRealmUser(fixture.realms, {
      byok_openai_key: [legacyRing.encrypt(randomKey())],
    });
    for (let at = 0; at < 10; at += 1) await storeKey(context, owner);
    const report = await importAll();
    expect(report.problems).toEqual([{ userId: id, provider: 'openai', why: 'pool_full' }]);
    expect((await readStoredPool(context, owner)).keys).toHaveLength(10);
  }, 60_000);

  it('counts keys that cannot be imported, names only user and provider, and imports the others', async () => {
    const good = randomKey('sk-or-v1-');
    const { owner, id } = await createRealmUser(fixture.realms, {
      byok_nosuch_key: [legacyRing.encrypt('something')],
      byok_openai_key: [createKeyring([fernetKey()]).encrypt(randomKey())],
      byok_openrouter_key: [legacyRing.encrypt(good)],
      byok_custom_key: [legacyRing.encrypt(randomKey())],
      byok_custom_endpoint: ['http://169.254.169.254/latest'],
    });
    const other = await createRealmUser(fixture.realms, {
      byok_openai_key: [legacyRing.encrypt('not a key\n')],
      byok_custom_key: [legacyRing.encrypt(randomKey())],
      byok_openrouter_key: [legacyRing.encrypt(randomKey('sk-or-v1-'))],
      byok_openrouter_endpoint: ['https://another.example/v1'],
    });
    const report = await importAll();
    const byText = (a: unknown, b: unknown) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
    expect(report.problems.toSorted(byText)).toEqual(
      [
        { userId: id, provider: 'nosuch', why: 'unknown_provider' },
        { userId: id, provider: 'openai', why: 'undecryptable' },
        { userId: id, provider: 'custom', why: 'endpoint_refused' },
        { userId: other.id, provider: 'openai', why: 'malformed' },
        { userId: other.id, provider: 'custom', why: 'endpoint_refused' },
        { userId: other.id, provider: 'openrouter', why: 'endpoint_refused' },
      ].toSorted(byText),
    );
    expect(report.counts).toMatchObject({
      ...{ imported: 1, unknown_provider: 1, undecryptable: 1, endpoint_refused: 3, malformed: 1 },
    });
    expect((await readStoredPool(context, owner, 'openrouter')).keys).toHaveLength(1);
  });

  it('never imports the key of another user from a ciphertext in the old attributes', async () => {
    const victim = await createRealmUser(fixture.realms);
    await storeKey(context, victim.owner);
    const token = (await readStoredPool(context, victim.owner)).keys[0]?.token ?? '';
    const array = legacyRing.encrypt(JSON.stringify([randomKey()]));
    for (const stolen of [token, legacyRing.encrypt(createKeyring(keys).decrypt(token) ?? ''), array]) {
      const { id, owner } = await createRealmUser(fixture.realms, {
        byok_custom_key: [stolen],
        byok_custom_endpoint: ['https://93.184.215.14/v1'],
      });
      for (const dryRun of [true, false])
        expect((await importAll({ dryRun })).problems).toContainEqual({
          ...{ userId: id, provider: 'custom', why: 'malformed' },
        });
      expect((await readStoredPool(context, owner, 'custom')).keys).toEqual([]);
    }
  });

  it('writes nothing in a dry run and reports what it would do', async () => {
    const { owner } = await createRealmUser(fixture.realms, {
      byok_openai_key: [legacyRing.encrypt(randomKey())],
    });
    expect((await importAll({ dryRun: true })).counts).toMatchObject({ imported: 1 });
    expect((await readStoredPool(context, owner)).keys).toEqual([]);
    expect(await readAuditTrail(context, owner)).toEqual([]);
    await importAll();
    expect((await importAll({ dryRun: true })).counts).toMatchObject({ imported: 0, present: 1 });
  });

  it('is refused on an ENCRYPTION_KEY that does not fit the stored keys', async () => {
    const { owner } = await createRealmUser(fixture.realms, {
      byok_openai_key: [legacyRing.encrypt(randomKey())],
    });
    await assertCanary({ ...context, keyring: createKeyring([fernetKey()]) });
    const otherOwner = randomOwner();
    await context.database.withOwner(otherOwner, (sql) => writeVaultId(sql, otherOwner, 'a-record'));
    await expect(importAll()).rejects.toThrow('ENCRYPTION_KEY does not fit');
    expect((await readStoredPool(context, owner)).keys).toEqual([]);
  });
});

describe('the date of a legacy key', () => {
  const dateOf = (text: string) =>
    readLegacyKeys({ attributes: { byok_openai_key: ['t'], byok_openai_added_date: [text] } })[0]?.addedAt;

  it.each([
    ['2024-05-06T07:08:09.123456', '2024-05-06T07:08:09.123Z'],
    ['2024-05-06 07:08:09', '2024-05-06T07:08:09.000Z'],
    ['2024-05-06T07:08:09+02:00', '2024-05-06T05:08:09.000Z'],
    ['2024-05-06T07:08:09Z', '2024-05-06T07:08:09.000Z'],
  ])('%s is read as %s', (text, expected) => {
    expect(dateOf(text)?.toISOString()).toBe(expected);
  });

  it.each(['', 'yesterday', '2999-01-01T00:00:00'])('"%s" is ignored', (text) => {
    expect(dateOf(text)).toBeUndefined();
  });
});
