import { readFileSync } from 'node:fs';
import { moveVault, type MoveReport } from '../keys/admin/move.ts';
import { purgeVault, type PurgeReport } from '../keys/admin/purge.ts';
import { describeLocation } from '../keys/service.ts';
import {
  formatCount,
  createProgressReporter,
  toPrintable,
  withCommandContext,
  type CommandIo,
} from './admin-command.ts';
import { StartError } from '../lib/errors.ts';

/**
 * `vault purge`: lists the vault records and servers of users that no longer exist, and deletes them with `yes`.
 * @returns false if a requested deletion was refused or failed.
 */
export async function vaultPurge(
  io: CommandIo,
  options: { yes: boolean; evenMost: boolean },
): Promise<boolean> {
  const { report, isOneRealm } = await withCommandContext(io, async (context) => ({
    report: await purgeVault(context, options),
    isOneRealm: context.vaultLocation.recordIsUser,
  }));
  io.print(
    `${isOneRealm ? 'In the one-realm layout, keys are stored with the users and are deleted with them.\n' : ''}${formatPurge(report, options.yes)}`,
  );
  return !report.isRefused && report.failed.length === 0;
}

function formatPurge(report: PurgeReport, yes: boolean): string {
  const { owners, orphans, isRefused, removed, kept, failed } = report;
  const lines = orphans.map(
    ({ owner, ownerName, keys }) =>
      `${toPrintable(owner)}  ${toPrintable(ownerName) || '(no name)'}  ${formatCount(keys, 'key')}`,
  );
  const head = `${orphans.length} of ${formatCount(owners, 'owner')} of keys or servers not found in Keycloak`;
  if (orphans.length === 0) return `${head}.`;
  if (isRefused) {
    lines.push(
      'Nothing was deleted: more than half of all owners, or more than a tenth and more than three, are missing, so KEYCLOAK_REALM may be wrong. ' +
        'If it is right, add --even-most.',
    );
  } else if (!yes) lines.push('Nothing was deleted. To delete their keys and servers, add --yes.');
  else {
    lines.push(`Deleted the keys and servers of ${formatCount(removed.length, 'owner')}.`);
    lines.push(...kept.map((owner) => `kept: ${toPrintable(owner)} exists in Keycloak`));
    lines.push(...failed.map(({ owner, why }) => `not deleted: ${toPrintable(owner)} (${why})`));
  }
  return [`${head}:`, ...lines].join('\n');
}

export interface VaultMoveOptions {
  fromClientId: string;
  /** File with the client's secret: an argument would be visible in the process list. */
  fromSecretFile: string;
  cleanUp?: string | undefined;
  dryRun: boolean;
}

/**
 * `vault move`: moves all vault records from their current realm to the configured one.
 * @returns false if a record was not copied or an old record was not removed.
 */
export async function vaultMove(io: CommandIo, options: VaultMoveOptions): Promise<boolean> {
  const from = { id: options.fromClientId, secret: readSecret(options.fromSecretFile) };
  const onProgress = createProgressReporter<{ step: string; records: number }>(
    io.printProgress,
    ({ step, records }) => `${step}: ${formatCount(records, 'vault record')}`,
  );
  const { cleanUp, dryRun } = options;
  const report = await withCommandContext(
    io,
    (context) => moveVault(context, { from, cleanUp, dryRun, onProgress }),
    { isMoving: true },
  );
  io.print(formatMove(report, options));
  return report.blockers.length + report.notRemoved.length === 0;
}

function formatMove(report: MoveReport, { cleanUp, dryRun }: VaultMoveOptions): string {
  const { from, to, copied, empty, blockers, isMoved, removed, notRemoved } = report;
  const removal = [
    `${formatCount(removed, 'old vault record')} removed`,
    ...notRemoved.map(({ record, why }) => `not removed: ${toPrintable(record)} (${why})`),
    ...(notRemoved.length > 0 ? [`Correct these, then run: vault move --clean-up ${from.realm}`] : []),
  ];
  if (cleanUp !== undefined) {
    return dryRun ? `Would remove what is left in ${describeLocation(from)}.` : removal.join('\n');
  }
  const lines = [
    `From ${describeLocation(from)} to ${describeLocation(to)}`,
    `${formatCount(copied, 'vault record')} ${dryRun ? 'would be copied' : 'copied'}, ${empty} without keys not copied`,
    ...blockers.map(({ record, why }) => `blocks the move: ${toPrintable(record)} (${toPrintable(why)})`),
  ];
  if (isMoved) return [...lines, 'The new realm is used from now on.', ...removal].join('\n');
  return [...lines, dryRun ? 'Nothing was changed.' : 'Not moved: the old realm is still used.'].join('\n');
}

function readSecret(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    throw new StartError(`The file of --from-secret-file cannot be read: ${file}`);
  }
}
