import { ConfigError } from '../config/config.ts';
import { isAppError, UnfitError } from '../lib/errors.ts';
import { StartError } from './start-error.ts';

/** @throws StartError when this is not the Node that the project is written for. */
export function assertNodeVersion(version: string): void {
  if (version.startsWith('24.')) return;
  throw new StartError(
    `Ops Center needs Node 24; this is Node ${version}. On Linux npm scripts bring it along; for everything else install it.`,
  );
}

/** An error as the person at the terminal should read it; only one that nobody foresaw shows its stack. */
export function toErrorMessage(error: unknown): string {
  if (error instanceof StartError || error instanceof ConfigError || error instanceof UnfitError)
    return error.message;
  if (isAppError(error)) return error.detail;
  if (!(error instanceof Error)) return String(error);
  return toPortInUseMessage(error) ?? error.stack ?? error.message;
}

/** A listener of ours that found its port taken after all. */
function toPortInUseMessage(error: Error & { code?: unknown; port?: unknown }): string | undefined {
  if (error.code !== 'EADDRINUSE') return undefined;
  return `Port ${String(error.port)} is in use by another program. Set PORT or METRICS_PORT to another one (0 picks a free one).`;
}
