import { beforeEach, describe, expect, it } from '@jest/globals';
import type { KeyAdminContext } from '../../../src/cli/context.ts';
import { assertCanary } from '../../../src/keys/admin/canary.ts';
import { checkKeys } from '../../../src/keys/admin/check.ts';
import { importLegacyKeys } from '../../../src/keys/admin/import.ts';
import { moveVault } from '../../../src/keys/admin/move.ts';
import { withCommandLock } from '../../../src/keys/admin/command-lock.ts';
import { purgeVault } from '../../../src/keys/admin/purge.ts';
import { rotateKeys } from '../../../src/keys/admin/rotate.ts';
import { assertVaultLocation } from '../../../src/keys/vault-location.ts';
import { UnfitError } from '../../../src/lib/errors.ts';
import { createFixture, randomOwner, readStoredPool, storeKey } from './fixture.ts';

const home = createFixture(2);
let custody: KeyAdminContext;
/** The same installation with another vault realm, as `vault move` needs it. */
let target: KeyAdminContext;

beforeEach(async () => {
  custody = home.open();
  target = home.open({ vaultRealm: home.realms.vaults[1] ?? '' });
  await assertVaultLocation(custody.database, custody.vaultLocation);
  await assertCanary(custody);
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
    const owner = randomOwner();
    await storeKey(custody, owner);
    const before = await readStoredPool(custody, owner);
    await withCommandLock(target.database, async () => {
      await expect(run()).rejects.toBeInstanceOf(UnfitError);
      await expect(run()).rejects.toThrow('Another command is writing stored keys');
    });
    expect(await readStoredPool(custody, owner)).toEqual(before);
    // And when it is over, it is not refused for that.
    const error: unknown = await run().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(String(error)).not.toContain('Another command');
  });

  it('those that only look run', async () => {
    await storeKey(custody, randomOwner());
    await withCommandLock(target.database, async () => {
      await checkKeys(custody);
      await importLegacyKeys(custody, { dryRun: true, onProgress });
      await purgeVault(custody, { yes: false, evenMost: false });
      expect(await move({ dryRun: true })).toMatchObject({ copied: 1 });
    });
  });
});

it('a command that fails lets the next one run', async () => {
  const failing = withCommandLock(custody.database, () => Promise.reject(new Error('the power went out')));
  await expect(failing).rejects.toThrow('the power went out');
  expect(await withCommandLock(target.database, () => Promise.resolve('done'))).toBe('done');
});
