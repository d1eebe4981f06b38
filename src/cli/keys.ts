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
 * `keys check`: counts the secrets that each key of the keyring decrypts. Changes nothing.
 * @returns false if a secret is undecryptable or misplaced, or if the app would refuse to start.
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

/** Positions in the keyring are counted from 1. */
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
    `  undecryptable (altered, or encrypted with a key that is not in ENCRYPTION_KEY): ${check.undecryptable}`,
    `  misplaced (decryptable, but encrypted for another owner, provider, id, endpoint or expiry): ${check.misplaced}`,
    `  with an id that is not unique in its pool: ${check.duplicatedIds}`,
    `values that are not stored keys: ${check.unreadable}`,
    `vault records without an owner: ${check.withoutOwner}`,
    ...check.otherSecrets.flatMap(formatOtherSecrets),
    check.canaryKeyIndex === undefined
      ? 'the app would refuse to start with this ENCRYPTION_KEY'
      : `the app needs this key to start: ${describeRingKey(check.canaryKeyIndex)}`,
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
  return `key ${index + 1} of ENCRYPTION_KEY${index === 0 ? ', used to encrypt' : ''}`;
}

/**
 * `keys rotate`: re-encrypts all secrets with the first key.
 * @returns false if an older key is still needed.
 */
export async function keysRotate(io: CommandIo, options: { acceptLoss: boolean }): Promise<boolean> {
  const onProgress = createProgressReporter<RotationProgress>(
    io.printProgress,
    ({ records, reencrypted, reencryptedSecrets }) =>
      `${formatCount(records, 'vault record')} read, ${formatCount(reencrypted, 'key')} and ` +
      `${formatCount(reencryptedSecrets, 'other secret')} re-encrypted`,
  );
  const report = await withCommandContext(io, (context) => rotateKeys(context, { ...options, onProgress }));
  io.print(formatRotation(report));
  return report.isFinished;
}

function formatRotation(report: RotationReport): string {
  const { reencrypted, reencryptedSecrets, failed, skipped, counts, otherSecrets, isFinished } = report;
  const lines = [
    `${formatCount(reencrypted, 'key')} and ${formatCount(reencryptedSecrets, 'other secret')} re-encrypted with the first key`,
    ...failed.map(({ pool, why }) => `not written: ${toPrintable(pool)} (${why})`),
    ...skipped.map(({ key, why }) => `skipped: ${toPrintable(key)} (${why})`),
    ...counts.byRingKey.map((count, index) => `encrypted with ${describeRingKey(index)}: ${count}`),
    ...otherSecrets.flatMap(formatOtherSecrets),
  ];
  if (isFinished) {
    const older = counts.byRingKey.length > 1 ? ' You can remove the older keys from ENCRYPTION_KEY.' : '';
    return [...lines, `Done: no secret needs an older key.${older}`].join('\n');
  }
  const nothingDecrypts = 'Not done: no key of ENCRYPTION_KEY decrypts any stored key.';
  if (report.decryptsNothing)
    return [
      ...lines,
      `${nothingDecrypts} Add the right key, or accept the loss of the stored keys with --accept-loss.`,
    ].join('\n');
  const nextStep =
    failed.length > 0 || counts.misplacedUnderOlderKey === 0
      ? 'Run it again.'
      : 'Correct or delete the misplaced keys, or accept their loss with --accept-loss; then run it again.';
  return [...lines, `Not done: an older key is still needed. ${nextStep}`].join('\n');
}

/**
 * `keys import-legacy`: copies the keys of the previous system.
 * @returns false if a key was not imported.
 */
export async function keysImportLegacy(io: CommandIo, options: { dryRun: boolean }): Promise<boolean> {
  const onProgress = createProgressReporter<{ users: number; imported: number }>(
    io.printProgress,
    ({ users, imported }) => `${formatCount(users, 'user')}: ${formatCount(imported, 'key')} imported`,
  );
  const report = await withCommandContext(io, (context) =>
    importLegacyKeys(context, { ...options, onProgress }),
  );
  io.print(formatImport(report, options.dryRun));
  return report.problems.length === 0;
}

const IMPORT_OUTCOMES = {
  imported: 'imported',
  present: 'already stored',
  pool_full: 'the pool is full (10 keys)',
  unknown_provider: 'unknown provider',
  undecryptable: 'no key of ENCRYPTION_KEY decrypts it; append the key of the old system',
  malformed: 'not a valid key of this provider',
  endpoint_refused: 'its endpoint is missing or not allowed for this provider',
  failed: 'it could not be written; run the command again',
};

function formatImport({ users, counts, problems }: ImportReport, dryRun: boolean): string {
  const imported = `${formatCount(counts.imported, 'key')} ${dryRun ? 'would be imported' : 'imported'}`;
  if (users === 0) {
    return (
      'No user has attributes of the old layout. If there should be some: Keycloak returns undeclared attributes only ' +
      'if "Unmanaged Attributes" of the realm is "Only administrators can write" (docs/operations.md).'
    );
  }
  return [
    `${formatCount(users, 'user')} with keys of the old layout; ${imported}, ${counts.present} already stored`,
    ...problems.map(
      ({ userId, provider, why }) => `${userId}, ${toPrintable(provider)}: ${IMPORT_OUTCOMES[why]}`,
    ),
  ].join('\n');
}
