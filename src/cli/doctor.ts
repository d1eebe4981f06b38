import type { Environment } from '../config.ts';
import { examineRealms } from '../doctor/realm-check.ts';
import { reportText } from '../doctor/report.ts';
import { settingsOfRunning } from './running-stack.ts';
import { readSettings } from './settings.ts';

/**
 * Prints everything that the realms are checked for.
 * @returns false when something must be changed.
 */
export async function doctor(
  environment: Environment,
  cwd: string,
  print: (text: string) => void,
): Promise<boolean> {
  const findings = await examineRealms(readSettings(settingsOfRunning(environment, cwd)));
  print(reportText(findings));
  return findings.every(({ level }) => level !== 'error');
}
