/** One thing that was looked at. `fix` says what an administrator should change; empty when all is well. */
export interface Finding {
  level: 'ok' | 'warning' | 'error';
  /** What was looked at, e.g. `the tier in realm ops-center`. */
  check: string;
  detail: string;
  fix: string;
}

export function ok(check: string, detail: string): Finding {
  return { level: 'ok', check, detail, fix: '' };
}

/** The app runs, but less well or less safely than it could. */
export function warning(check: string, detail: string, fix: string): Finding {
  return { level: 'warning', check, detail, fix };
}

/** The app refuses to run. */
export function error(check: string, detail: string, fix: string): Finding {
  return { level: 'error', check, detail, fix };
}
