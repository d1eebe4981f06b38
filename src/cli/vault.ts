import { readFileSync } from 'node:fs';
import { moveVault, type MoveReport } from '../keys/custody/move.ts';
import { purgeVault, type PurgeReport } from '../keys/custody/purge.ts';
import { describePlace } from '../keys/vault-place.ts';
import { counted, everySoOften, printable, withCustody, type CommandSurroundings } from './custody.ts';
import { StartError } from './start-error.ts';

/**
 * `vault purge`: lists, and with `yes` deletes, the vault records and servers of people who are no more.
 * @returns false when something that should have been deleted was not.
 */
export async function vaultPurge(
  around: CommandSurroundings,
  options: { yes: boolean; evenMost: boolean },
): Promise<boolean> {
  const { report, isOneRealm } = await withCustody(around, async (custody) => ({
    report: await purgeVault(custody, options),
    isOneRealm: custody.place.recordIsUser,
  }));
  around.print(
    `${isOneRealm ? 'Here keys lie with the people themselves and go with them.\n' : ''}${purgeText(report, options.yes)}`,
  );
  return !report.isRefused && report.failed.length === 0;
}

function purgeText(report: PurgeReport, yes: boolean): string {
  const { owners, orphans, isRefused, removed, kept, failed } = report;
  const lines = orphans.map(
    ({ owner, ownerName, keys }) =>
      `${printable(owner)}  ${printable(ownerName) || '(no name)'}  ${counted(keys, 'key')}`,
  );
  const head = `Of ${counted(owners, 'owner')} of keys or servers, Keycloak does not know ${orphans.length}`;
  if (orphans.length === 0) return `${head}.`;
  if (isRefused) {
    lines.push(
      'Nothing was deleted: more than a tenth of all owners are missing, which is also what a wrong ' +
        'KEYCLOAK_REALM looks like. If it is right, add --even-most.',
    );
  } else if (!yes) lines.push('Nothing was deleted. To delete their keys and servers: --yes');
  else {
    lines.push(`The keys and servers of ${counted(removed.length, 'owner')} deleted.`);
    lines.push(...kept.map((owner) => `kept: ${printable(owner)} is there after all`));
    lines.push(...failed.map(({ owner, why }) => `not deleted: ${printable(owner)} (${why})`));
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
export async function vaultMove(around: CommandSurroundings, options: VaultMoveOptions): Promise<boolean> {
  const from = { id: options.fromClientId, secret: readSecret(options.fromSecretFile) };
  const onProgress = everySoOften<{ step: string; records: number }>(
    around.say,
    ({ step, records }) => `${step}: ${counted(records, 'record')}`,
  );
  const { cleanUp, dryRun } = options;
  const report = await withCustody(
    around,
    (custody) => moveVault(custody, { from, cleanUp, dryRun, onProgress }),
    { isMoving: true },
  );
  around.print(moveText(report, options));
  return report.stopping.length + report.notRemoved.length === 0;
}

function moveText(report: MoveReport, { cleanUp, dryRun }: VaultMoveOptions): string {
  const { from, to, copied, empty, stopping, isMoved, removed, notRemoved } = report;
  const removal = [
    `${counted(removed, 'old record')} removed`,
    ...notRemoved.map(({ record, why }) => `not removed: ${printable(record)} (${why})`),
    ...(notRemoved.length > 0 ? [`Look at these, then: vault move --clean-up ${from.realm}`] : []),
  ];
  if (cleanUp !== undefined) {
    return dryRun ? `Would remove what is left in ${describePlace(from)}.` : removal.join('\n');
  }
  const lines = [
    `From ${describePlace(from)} to ${describePlace(to)}`,
    `${counted(copied, 'record')} ${dryRun ? 'would be copied' : 'copied'}, ${empty} without keys left behind`,
    ...stopping.map(({ record, why }) => `stops the move: ${printable(record)} (${printable(why)})`),
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
