import { readFileSync } from 'node:fs';
import { moveVault, type MoveReport } from '../keys/admin/move.ts';
import { purgeVault, type PurgeReport } from '../keys/admin/purge.ts';
import { describeLocation } from '../keys/vault-location.ts';
import {
  formatCount,
  createProgressReporter,
  toPrintable,
  withCommandContext,
  type CommandIo,
} from './admin-command.ts';
import { StartError } from './start-error.ts';

/**
 * `vault purge`: lists, and with `yes` deletes, the vault records and servers of people who are no more.
 * @returns false when something that should have been deleted was not.
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
    `${isOneRealm ? 'Here keys lie with the people themselves and go with them.\n' : ''}${formatPurge(report, options.yes)}`,
  );
  return !report.isRefused && report.failed.length === 0;
}

function formatPurge(report: PurgeReport, yes: boolean): string {
  const { owners, orphans, isRefused, removed, kept, failed } = report;
  const lines = orphans.map(
    ({ owner, ownerName, keys }) =>
      `${toPrintable(owner)}  ${toPrintable(ownerName) || '(no name)'}  ${formatCount(keys, 'key')}`,
  );
  const head = `Of ${formatCount(owners, 'owner')} of keys or servers, Keycloak does not know ${orphans.length}`;
  if (orphans.length === 0) return `${head}.`;
  if (isRefused) {
    lines.push(
      'Nothing was deleted: more than a tenth of all owners are missing, which is also what a wrong ' +
        'KEYCLOAK_REALM looks like. If it is right, add --even-most.',
    );
  } else if (!yes) lines.push('Nothing was deleted. To delete their keys and servers: --yes');
  else {
    lines.push(`The keys and servers of ${formatCount(removed.length, 'owner')} deleted.`);
    lines.push(...kept.map((owner) => `kept: ${toPrintable(owner)} is there after all`));
    lines.push(...failed.map(({ owner, why }) => `not deleted: ${toPrintable(owner)} (${why})`));
  }
  return [`${head}:`, ...lines].join('\n');
}

export interface VaultMoveOptions {
  fromClientId: string;
  /** A file that holds the client's secret: an argument would be seen in the list of processes. */
  fromSecretFile: string;
  cleanUp?: string | undefined;
  dryRun: boolean;
}

/**
 * `vault move`: moves all records from where they are stored to where the configuration says.
 * @returns false when not everything was moved and removed.
 */
export async function vaultMove(io: CommandIo, options: VaultMoveOptions): Promise<boolean> {
  const from = { id: options.fromClientId, secret: readSecret(options.fromSecretFile) };
  const onProgress = createProgressReporter<{ step: string; records: number }>(
    io.printProgress,
    ({ step, records }) => `${step}: ${formatCount(records, 'record')}`,
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
  const { from, to, copied, empty, blockers: stopping, isMoved, removed, notRemoved } = report;
  const removal = [
    `${formatCount(removed, 'old record')} removed`,
    ...notRemoved.map(({ record, why }) => `not removed: ${toPrintable(record)} (${why})`),
    ...(notRemoved.length > 0 ? [`Look at these, then: vault move --clean-up ${from.realm}`] : []),
  ];
  if (cleanUp !== undefined) {
    return dryRun ? `Would remove what is left in ${describeLocation(from)}.` : removal.join('\n');
  }
  const lines = [
    `From ${describeLocation(from)} to ${describeLocation(to)}`,
    `${formatCount(copied, 'record')} ${dryRun ? 'would be copied' : 'copied'}, ${empty} without keys left behind`,
    ...stopping.map(({ record, why }) => `stops the move: ${toPrintable(record)} (${toPrintable(why)})`),
  ];
  if (isMoved) return [...lines, 'The new place counts from now on.', ...removal].join('\n');
  return [...lines, dryRun ? 'Nothing was changed.' : 'Not moved: the old place counts.'].join('\n');
}

function readSecret(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    throw new StartError(`--from-secret-file names a file that cannot be read: ${file}`);
  }
}
