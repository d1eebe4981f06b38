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

const fixture = createFixture(2);
let context: KeyAdminContext;
/** The same installation with another vault realm, as `vault move` needs it. */
let target: KeyAdminContext;

beforeEach(async () => {
  context = fixture.open();
  target = fixture.open({ vaultRealm: fixture.realms.vaults[1] ?? '' });
  await assertVaultLocation(context.database, context.vaultLocation);
  await assertCanary(context);
});

const onProgress = () => undefined;
const move = (options: { dryRun: boolean; cleanUp?: string }) =>
  moveVault(target, {
    from: { id: 'ops-center-vault', secret: fixture.realms.secret },
    ...{ cleanUp: undefined, onProgress, ...options },
  });

describe('while another command writes stored keys', () => {
  it.each<[string, () => Promise<unknown>]>([
    ['keys rotate', () => rotateKeys(context, { acceptLoss: false, onProgress })],
    ['keys import-legacy', () => importLegacyKeys(context, { dryRun: false, onProgress })],
    ['vault purge --yes', () => purgeVault(context, { yes: true, evenMost: true })],
    ['vault move', () => move({ dryRun: false })],
    ['vault move --clean-up', () => move({ dryRun: false, cleanUp: fixture.realms.vaults[0] ?? '' })],
  ])('%s is refused and writes nothing', async (_name, run) => {
    const owner = randomOwner();
    await storeKey(context, owner);
    const before = await readStoredPool(context, owner);
    await withCommandLock(target.database, async () => {
      await expect(run()).rejects.toBeInstanceOf(UnfitError);
      await expect(run()).rejects.toThrow('Another command is writing stored keys');
    });
    expect(await readStoredPool(context, owner)).toEqual(before);
    // After the other command it is no longer refused for this reason.
    const error: unknown = await run().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(String(error)).not.toContain('Another command');
  });

  it('commands that only read are not refused', async () => {
    await storeKey(context, randomOwner());
    await withCommandLock(target.database, async () => {
      await checkKeys(context);
      await importLegacyKeys(context, { dryRun: true, onProgress });
      await purgeVault(context, { yes: false, evenMost: false });
      expect(await move({ dryRun: true })).toMatchObject({ copied: 1 });
    });
  });
});

it('a command that fails releases the lock', async () => {
  const failing = withCommandLock(context.database, () => Promise.reject(new Error('interrupted')));
  await expect(failing).rejects.toThrow('interrupted');
  expect(await withCommandLock(target.database, () => Promise.resolve('done'))).toBe('done');
});
