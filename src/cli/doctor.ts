import type { Environment } from '../config/config.ts';
import { createDoctor, type Finding } from '../doctor/service.ts';
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
  const findings = await createDoctor(loadConfig(getRunningSettings(environment, cwd))).checkRealmsInDepth();
  print(formatFindings(findings));
  return findings.every(({ level }) => level !== 'error');
}

const LEVEL_LABELS = { ok: 'ok     ', warning: 'warning', error: 'ERROR  ' } as const;

/** One line per finding, followed by what to change, and a count at the end. */
function formatFindings(findings: readonly Finding[]): string {
  const lines = findings.map(({ level, check, detail, fix }) =>
    [`${LEVEL_LABELS[level]}  ${check}: ${detail}`, ...(fix === '' ? [] : [`         -> ${fix}`])].join('\n'),
  );
  const count = (level: Finding['level']) => findings.filter((finding) => finding.level === level).length;
  return [...lines, '', `${count('error')} error(s), ${count('warning')} warning(s)`].join('\n');
}
