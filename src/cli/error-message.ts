import { ConfigError } from '../config/config.ts';
import { isAppError, UnfitError, StartError } from '../lib/errors.ts';

/** @throws StartError if the Node version is not 24. */
export function assertNodeVersion(version: string): void {
  if (version.startsWith('24.')) return;
  throw new StartError(
    `Ops Center needs Node 24; this is Node ${version}. Install Node 24, or on Linux run "npm ci", which installs it for the npm scripts.`,
  );
}

/** Message of an error for the terminal. Only unexpected errors include their stack. */
export function toErrorMessage(error: unknown): string {
  if (error instanceof StartError || error instanceof ConfigError || error instanceof UnfitError)
    return error.message;
  if (isAppError(error)) return error.detail;
  if (!(error instanceof Error)) return String(error);
  return toPortInUseMessage(error) ?? error.stack ?? error.message;
}

/** Covers a port that was free when it was chosen and is in use when the app listens. */
function toPortInUseMessage(error: Error & { code?: unknown; port?: unknown }): string | undefined {
  if (error.code !== 'EADDRINUSE') return undefined;
  return `Port ${String(error.port)} is in use by another program. Set PORT or METRICS_PORT to another one (0 picks a free one).`;
}
