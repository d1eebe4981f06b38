/** Result of one check. `fix` tells an administrator what to change; empty for level `ok`. */
export interface Finding {
  level: 'ok' | 'warning' | 'error';
  /** Subject of the check, e.g. `the tier in realm ops-center`. */
  check: string;
  detail: string;
  fix: string;
}

export function createOk(check: string, detail: string): Finding {
  return { level: 'ok', check, detail, fix: '' };
}

/** The app starts, but with less function or less safety. */
export function createWarning(check: string, detail: string, fix: string): Finding {
  return { level: 'warning', check, detail, fix };
}

/** The app refuses to start. */
export function createError(check: string, detail: string, fix: string): Finding {
  return { level: 'error', check, detail, fix };
}
