import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { Custody } from '../../../src/custody.ts';
import { checkCanary } from '../../../src/keys/custody/canary.ts';
import { checkKeys } from '../../../src/keys/custody/check.ts';
import { importLegacyKeys } from '../../../src/keys/custody/import-legacy.ts';
import { moveVault } from '../../../src/keys/custody/move.ts';
import { asOnlyCommand } from '../../../src/keys/custody/only-command.ts';
import { purgeVault } from '../../../src/keys/custody/purge.ts';
import { rotateKeys } from '../../../src/keys/custody/rotate.ts';
import { checkVaultPlace } from '../../../src/keys/vault-place.ts';
import { UnfitError } from '../../../src/lib/errors.ts';
import { fernetKey } from '../../support/app.ts';
import { createDatabase } from '../../support/stack.ts';
import { createRealms, emptyRealm, newOwner, openCustody, poolOf, storeKey, type Realms } from './rig.ts';

let realms: Realms;
let custody: Custody;
/** The same installation with another vault realm, as `vault move` needs it. */
let target: Custody;

beforeAll(async () => {
  realms = await createRealms(2);
}, 120_000);
afterAll(() => realms.drop(), 60_000);

beforeEach(async () => {
  await Promise.all([realms.people, ...realms.vaults].map(emptyRealm));
  const setting = { databaseUrl: (await createDatabase()).appUrl, realms, encryptionKeys: [fernetKey()] };
  const [vaultRealm = '', other = ''] = realms.vaults;
  custody = openCustody({ ...setting, vaultRealm });
  target = openCustody({ ...setting, vaultRealm: other });
  await checkVaultPlace(custody.database, custody.place);
  await checkCanary(custody);
}, 60_000);
afterEach(async () => {
  await Promise.all([custody.close(), target.close()]);
});

const onProgress = () => undefined;
const move = (options: { dryRun: boolean; cleanUp?: string }) =>
  moveVault(target, {
    from: { id: 'ops-center-vault', secret: realms.secret },
    ...{ cleanUp: undefined, onProgress, ...options },
  });

describe('while a command writes stored keys', () => {
  it.each<[string, () => Promise<unknown>]>([
    ['keys rotate', () => rotateKeys(custody, { acceptLoss: false, onProgress })],
    ['keys import-legacy', () => importLegacyKeys(custody, { dryRun: false, onProgress })],
    ['vault purge --yes', () => purgeVault(custody, { yes: true, evenMost: true })],
    ['vault move', () => move({ dryRun: false })],
    ['vault move --clean-up', () => move({ dryRun: false, cleanUp: realms.vaults[0] ?? '' })],
  ])('%s is refused in words and writes nothing', async (_name, run) => {
    const owner = newOwner();
    await storeKey(custody, owner);
    const before = await poolOf(custody, owner);
    await asOnlyCommand(target.database, async () => {
      await expect(run()).rejects.toBeInstanceOf(UnfitError);
      await expect(run()).rejects.toThrow('Another command is writing stored keys');
    });
    expect(await poolOf(custody, owner)).toEqual(before);
    // And when it is over, it is not refused for that.
    const error: unknown = await run().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(String(error)).not.toContain('Another command');
  });

  it('those that only look run', async () => {
    await storeKey(custody, newOwner());
    await asOnlyCommand(target.database, async () => {
      await checkKeys(custody);
      await importLegacyKeys(custody, { dryRun: true, onProgress });
      await purgeVault(custody, { yes: false, evenMost: false });
      expect(await move({ dryRun: true })).toMatchObject({ copied: 1 });
    });
  });
});

it('a command that fails lets the next one run', async () => {
  const failing = asOnlyCommand(custody.database, () => Promise.reject(new Error('the power went out')));
  await expect(failing).rejects.toThrow('the power went out');
  expect(await asOnlyCommand(target.database, () => Promise.resolve('done'))).toBe('done');
});
