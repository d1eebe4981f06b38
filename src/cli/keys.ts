import { checkKeys, type KeyCheckReport } from '../keys/admin/check.ts';
import { importLegacyKeys, type ImportReport } from '../keys/admin/import.ts';
import type { OtherSecretCounts } from '../keys/admin/other-secrets.ts';
import { rotateKeys, type RotationProgress, type RotationReport } from '../keys/admin/rotate.ts';
import {
  formatCount,
  createProgressReporter,
  toPrintable,
  withCommandContext,
  type CommandIo,
} from './admin-command.ts';

/**
 * `keys check`: counts what the key ring opens, and changes nothing.
 * @returns false when anything is undecryptable or misplaced, or the app would refuse to start.
 */
export async function keysCheck(io: CommandIo, options: { json: boolean }): Promise<boolean> {
  const check = await withCommandContext(io, checkKeys);
  io.print(options.json ? JSON.stringify(toCheckJson(check)) : formatCheck(check));
  const problemCount = [check, ...check.otherSecrets].reduce(
    (sum, each) => sum + each.undecryptable + each.misplaced,
    0,
  );
  return problemCount === 0 && check.canaryKeyIndex !== undefined;
}

/** Ring positions count from 1, as people do. */
function toCheckJson(check: KeyCheckReport) {
  return {
    records: check.records,
    records_without_owner: check.withoutOwner,
    keys: check.keys,
    by_ring_key: check.byRingKey,
    undecryptable: check.undecryptable,
    misplaced: check.misplaced,
    not_keys: check.unreadable,
    duplicated_ids: check.duplicatedIds,
    elsewhere: check.otherSecrets.map(({ kind, texts, byRingKey, undecryptable, misplaced }) => ({
      ...{ kind, texts, by_ring_key: byRingKey, undecryptable, misplaced },
    })),
    canary_ring_key: check.canaryKeyIndex === undefined ? null : check.canaryKeyIndex + 1,
  };
}

function formatCheck(check: KeyCheckReport): string {
  const lines = check.byRingKey.map((count, index) => `  ${describeRingKey(index)}: ${count}`);
  return [
    `${formatCount(check.records, 'vault record')}, ${formatCount(check.keys, 'key')}`,
    ...lines,
    `  undecryptable (under a key that is not in ENCRYPTION_KEY, or altered): ${check.undecryptable}`,
    `  of those that open, misplaced (sealed for another place than where they lie): ${check.misplaced}`,
    `  with an id that its pool has twice: ${check.duplicatedIds}`,
    `values that are no keys: ${check.unreadable}`,
    `records that name no owner: ${check.withoutOwner}`,
    ...check.otherSecrets.flatMap(formatOtherSecrets),
    check.canaryKeyIndex === undefined
      ? 'the app refuses to start on this ENCRYPTION_KEY'
      : `a start needs ${describeRingKey(check.canaryKeyIndex)}`,
  ].join('\n');
}

function formatOtherSecrets({
  kind,
  texts,
  byRingKey,
  undecryptable,
  misplaced,
}: OtherSecretCounts): string[] {
  return [
    `${kind}: ${texts}`,
    ...byRingKey.map((count, index) => `  ${describeRingKey(index)}: ${count}`),
    `  undecryptable: ${undecryptable}`,
    `  misplaced: ${misplaced}`,
  ];
}

function describeRingKey(index: number): string {
  return `key ${index + 1} of ENCRYPTION_KEY${index === 0 ? ', which seals' : ''}`;
}

/**
 * `keys rotate`: seals everything under the first key.
 * @returns false when an older key is still needed.
 */
export async function keysRotate(io: CommandIo, options: { acceptLoss: boolean }): Promise<boolean> {
  const onProgress = createProgressReporter<RotationProgress>(
    io.printProgress,
    ({ records, reencrypted: resealed, reencryptedSecrets: resealedElsewhere }) =>
      `${formatCount(records, 'record')} seen, ${formatCount(resealed, 'key')} and ` +
      `${formatCount(resealedElsewhere, 'other secret')} sealed anew`,
  );
  const report = await withCommandContext(io, (context) => rotateKeys(context, { ...options, onProgress }));
  io.print(formatRotation(report));
  return report.isFinished;
}

function formatRotation(report: RotationReport): string {
  const {
    reencrypted: resealed,
    reencryptedSecrets: resealedElsewhere,
    failed,
    skipped: left,
    counts: tally,
    otherSecrets: elsewhere,
    isFinished,
  } = report;
  const lines = [
    `${formatCount(resealed, 'key')} and ${formatCount(resealedElsewhere, 'other secret')} sealed anew under the first key`,
    ...failed.map(({ pool, why }) => `not written: ${toPrintable(pool)} (${why})`),
    ...left.map(({ key, why }) => `left as it is: ${toPrintable(key)} (${why})`),
    ...tally.byRingKey.map((count, index) => `under ${describeRingKey(index)}: ${count}`),
    ...elsewhere.flatMap(formatOtherSecrets),
  ];
  if (isFinished) {
    const older = tally.byRingKey.length > 1 ? ' The older keys can be taken out of ENCRYPTION_KEY.' : '';
    return [...lines, `Done: nothing needs an older key.${older}`].join('\n');
  }
  const nothingDecrypts = 'Not done: ENCRYPTION_KEY opens none of the stored keys.';
  if (report.decryptsNothing)
    return [...lines, `${nothingDecrypts} Look for the right one, or give them up with --accept-loss.`].join(
      '\n',
    );
  const nextStep =
    failed.length > 0 || tally.misplacedUnderOlderKey === 0
      ? 'Run it again.'
      : 'Mend or delete the misplaced keys, or give them up with --accept-loss; then run it again.';
  return [...lines, `Not done: an older key is still needed. ${nextStep}`].join('\n');
}

/**
 * `keys import-legacy`: copies the keys of the system that came before.
 * @returns false when any was not imported.
 */
export async function keysImportLegacy(io: CommandIo, options: { dryRun: boolean }): Promise<boolean> {
  const onProgress = createProgressReporter<{ users: number; imported: number }>(
    io.printProgress,
    ({ users, imported }) =>
      `${formatCount(users, 'person').replace('persons', 'people')}: ${imported} imported`,
  );
  const report = await withCommandContext(io, (context) =>
    importLegacyKeys(context, { ...options, onProgress }),
  );
  io.print(formatImport(report, options.dryRun));
  return report.problems.length === 0;
}

const IMPORT_OUTCOMES = {
  imported: 'imported',
  present: 'stored already',
  pool_full: 'the pool is full (10 keys)',
  unknown_provider: 'no such provider',
  undecryptable: 'no key of ENCRYPTION_KEY opens it: append the one of the old system',
  malformed: 'it is no key of this provider',
  endpoint_refused: 'its endpoint is missing, refused, or not one that this provider takes',
  failed: 'it could not be written; run it again',
};

function formatImport({ users, counts, problems }: ImportReport, dryRun: boolean): string {
  const imported = `${formatCount(counts.imported, 'key')} ${dryRun ? 'would be imported' : 'imported'}`;
  if (users === 0) {
    return (
      'Nobody has attributes of the old layout. If somebody should: Keycloak shows undeclared attributes only ' +
      'where "Unmanaged Attributes" of the realm is "Only administrators can write" (docs/operations.md).'
    );
  }
  return [
    `${users} with keys of the old layout; ${imported}, ${counts.present} stored already`,
    ...problems.map(
      ({ userId, provider, why }) => `${userId}, ${toPrintable(provider)}: ${IMPORT_OUTCOMES[why]}`,
    ),
  ].join('\n');
}
