import { beforeEach, describe, expect, it } from '@jest/globals';
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
import { makeHome, newOwner, poolOf, storeKey } from './rig.ts';

const home = makeHome(2);
let custody: Custody;
/** The same installation with another vault realm, as `vault move` needs it. */
let target: Custody;

beforeEach(async () => {
  custody = home.open();
  target = home.open({ vaultRealm: home.realms.vaults[1] ?? '' });
  await checkVaultPlace(custody.database, custody.place);
  await checkCanary(custody);
});

const onProgress = () => undefined;
const move = (options: { dryRun: boolean; cleanUp?: string }) =>
  moveVault(target, {
    from: { id: 'ops-center-vault', secret: home.realms.secret },
    ...{ cleanUp: undefined, onProgress, ...options },
  });

describe('while a command writes stored keys', () => {
  it.each<[string, () => Promise<unknown>]>([
    ['keys rotate', () => rotateKeys(custody, { acceptLoss: false, onProgress })],
    ['keys import-legacy', () => importLegacyKeys(custody, { dryRun: false, onProgress })],
    ['vault purge --yes', () => purgeVault(custody, { yes: true, evenMost: true })],
    ['vault move', () => move({ dryRun: false })],
    ['vault move --clean-up', () => move({ dryRun: false, cleanUp: home.realms.vaults[0] ?? '' })],
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
