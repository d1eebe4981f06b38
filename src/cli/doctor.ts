import type { Environment } from '../config/config.ts';
import { checkRealmsInDepth } from '../doctor/realm-check.ts';
import { formatFindings } from '../doctor/report.ts';
import { getRunningSettings } from './running-stack.ts';
import { loadConfig } from './settings.ts';

/**
 * Checks the realms and prints all findings.
 * @returns false if there is an error to fix.
 */
export async function doctor(
  environment: Environment,
  cwd: string,
  print: (text: string) => void,
): Promise<boolean> {
  const findings = await checkRealmsInDepth(loadConfig(getRunningSettings(environment, cwd)));
  print(formatFindings(findings));
  return findings.every(({ level }) => level !== 'error');
}
