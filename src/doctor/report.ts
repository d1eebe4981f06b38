import type { Finding } from './finding.ts';

const LEVEL_LABELS = { ok: 'ok     ', warning: 'warning', error: 'ERROR  ' } as const;

/** One line per finding, followed by what to change, and a count at the end. */
export function formatFindings(findings: readonly Finding[]): string {
  const lines = findings.map(({ level, check, detail, fix }) =>
    [`${LEVEL_LABELS[level]}  ${check}: ${detail}`, ...(fix === '' ? [] : [`         -> ${fix}`])].join('\n'),
  );
  const count = (level: Finding['level']) => findings.filter((finding) => finding.level === level).length;
  return [...lines, '', `${count('error')} error(s), ${count('warning')} warning(s)`].join('\n');
}
