import { checkKeys, type KeyCheck } from '../keys/custody/check.ts';
import { importLegacyKeys, type ImportReport } from '../keys/custody/import-legacy.ts';
import type { SealedTally } from '../keys/custody/elsewhere.ts';
import { rotateKeys, type RotationProgress, type RotationReport } from '../keys/custody/rotate.ts';
import { counted, everySoOften, printable, withCustody, type CommandSurroundings } from './custody.ts';

/**
 * `keys check`: counts what the key ring opens, and changes nothing.
 * @returns false when anything is undecryptable or misplaced, or the app would refuse to start.
 */
export async function keysCheck(around: CommandSurroundings, options: { json: boolean }): Promise<boolean> {
  const check = await withCustody(around, checkKeys);
  around.print(options.json ? JSON.stringify(wireOf(check)) : checkText(check));
  const faults = [check, ...check.elsewhere].reduce(
    (sum, each) => sum + each.undecryptable + each.misplaced,
    0,
  );
  return faults === 0 && check.canary !== undefined;
}

/** Ring positions count from 1, as people do. */
function wireOf(check: KeyCheck) {
  return {
    records: check.records,
    records_without_owner: check.withoutOwner,
    keys: check.keys,
    by_ring_key: check.byRingKey,
    undecryptable: check.undecryptable,
    misplaced: check.misplaced,
    not_keys: check.notKeys,
    duplicated_ids: check.duplicatedIds,
    elsewhere: check.elsewhere.map(({ kind, texts, byRingKey, undecryptable, misplaced }) => ({
      ...{ kind, texts, by_ring_key: byRingKey, undecryptable, misplaced },
    })),
    canary_ring_key: check.canary === undefined ? null : check.canary + 1,
  };
}

function checkText(check: KeyCheck): string {
  const lines = check.byRingKey.map((count, index) => `  ${ringKey(index)}: ${count}`);
  return [
    `${counted(check.records, 'vault record')}, ${counted(check.keys, 'key')}`,
    ...lines,
    `  undecryptable (under a key that is not in ENCRYPTION_KEY, or altered): ${check.undecryptable}`,
    `  of those that open, misplaced (sealed for another place than where they lie): ${check.misplaced}`,
    `  with an id that its pool has twice: ${check.duplicatedIds}`,
    `values that are no keys: ${check.notKeys}`,
    `records that name no owner: ${check.withoutOwner}`,
    ...check.elsewhere.flatMap(elsewhereText),
    check.canary === undefined
      ? 'the app refuses to start on this ENCRYPTION_KEY'
      : `a start needs ${ringKey(check.canary)}`,
  ].join('\n');
}

function elsewhereText({ kind, texts, byRingKey, undecryptable, misplaced }: SealedTally): string[] {
  return [
    `${kind}: ${texts}`,
    ...byRingKey.map((count, index) => `  ${ringKey(index)}: ${count}`),
    `  undecryptable: ${undecryptable}`,
    `  misplaced: ${misplaced}`,
  ];
}

function ringKey(index: number): string {
  return `key ${index + 1} of ENCRYPTION_KEY${index === 0 ? ', which seals' : ''}`;
}

/**
 * `keys rotate`: seals everything under the first key.
 * @returns false when an older key is still needed.
 */
export async function keysRotate(
  around: CommandSurroundings,
  options: { acceptLoss: boolean },
): Promise<boolean> {
  const onProgress = everySoOften<RotationProgress>(
    around.say,
    ({ records, resealed, resealedElsewhere }) =>
      `${counted(records, 'record')} seen, ${counted(resealed, 'key')} and ` +
      `${counted(resealedElsewhere, 'other secret')} sealed anew`,
  );
  const report = await withCustody(around, (custody) => rotateKeys(custody, { ...options, onProgress }));
  around.print(rotationText(report));
  return report.isFinished;
}

function rotationText(report: RotationReport): string {
  const { resealed, resealedElsewhere, failed, left, tally, elsewhere, isFinished } = report;
  const lines = [
    `${counted(resealed, 'key')} and ${counted(resealedElsewhere, 'other secret')} sealed anew under the first key`,
    ...failed.map(({ pool, why }) => `not written: ${printable(pool)} (${why})`),
    ...left.map(({ key, why }) => `left as it is: ${printable(key)} (${why})`),
    ...tally.byRingKey.map((count, index) => `under ${ringKey(index)}: ${count}`),
    ...elsewhere.flatMap(elsewhereText),
  ];
  if (isFinished) {
    const older = tally.byRingKey.length > 1 ? ' The older keys can be taken out of ENCRYPTION_KEY.' : '';
    return [...lines, `Done: nothing needs an older key.${older}`].join('\n');
  }
  const nothing = 'Not done: ENCRYPTION_KEY opens none of the stored keys.';
  if (report.opensNothing)
    return [...lines, `${nothing} Look for the right one, or give them up with --accept-loss.`].join('\n');
  const how =
    failed.length > 0 || tally.misplacedUnderOlder === 0
      ? 'Run it again.'
      : 'Mend or delete the misplaced keys, or give them up with --accept-loss; then run it again.';
  return [...lines, `Not done: an older key is still needed. ${how}`].join('\n');
}

/**
 * `keys import-legacy`: copies the keys of the system that came before.
 * @returns false when any was not imported.
 */
export async function keysImportLegacy(
  around: CommandSurroundings,
  options: { dryRun: boolean },
): Promise<boolean> {
  const onProgress = everySoOften<{ users: number; imported: number }>(
    around.say,
    ({ users, imported }) => `${counted(users, 'person').replace('persons', 'people')}: ${imported} imported`,
  );
  const report = await withCustody(around, (custody) =>
    importLegacyKeys(custody, { ...options, onProgress }),
  );
  around.print(importText(report, options.dryRun));
  return report.problems.length === 0;
}

const WHY = {
  imported: 'imported',
  present: 'stored already',
  pool_full: 'the pool is full (10 keys)',
  unknown_provider: 'no such provider',
  undecryptable: 'no key of ENCRYPTION_KEY opens it: append the one of the old system',
  malformed: 'it is no key of this provider',
  endpoint_refused: 'its endpoint is missing, refused, or not one that this provider takes',
  failed: 'it could not be written; run it again',
};

function importText({ users, counts, problems }: ImportReport, dryRun: boolean): string {
  const imported = `${counted(counts.imported, 'key')} ${dryRun ? 'would be imported' : 'imported'}`;
  if (users === 0) {
    return (
      'Nobody has attributes of the old layout. If somebody should: Keycloak shows undeclared attributes only ' +
      'where "Unmanaged Attributes" of the realm is "Only administrators can write" (docs/operations.md).'
    );
  }
  return [
    `${users} with keys of the old layout; ${imported}, ${counts.present} stored already`,
    ...problems.map(({ userId, provider, why }) => `${userId}, ${printable(provider)}: ${WHY[why]}`),
  ].join('\n');
}
