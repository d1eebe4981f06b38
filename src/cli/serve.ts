import type { Environment } from '../config/config.ts';
import { startServer } from '../server.ts';
import { loadConfig } from './settings.ts';
import { whenAborted, type StopSignals } from './signals.ts';

/**
 * Production command: runs the app on the configured servers until `stop` is aborted.
 * @throws ConfigError listing all errors of the configuration.
 */
export async function serve(environment: Environment, signals: StopSignals): Promise<void> {
  const server = await startServer(loadConfig(environment));
  await whenAborted(signals.stop);
  await Promise.race([server.stop(), whenAborted(signals.force)]);
}
