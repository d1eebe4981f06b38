import type { Environment } from '../config/config.ts';
import { startServer } from '../server.ts';
import { loadConfig } from './settings.ts';
import { whenAborted, type StopSignals } from './signals.ts';

/**
 * The production command: starts the app on what is configured and nothing else, until it is told to stop.
 * @throws ConfigError listing every fault of the configuration at once.
 */
export async function serve(environment: Environment, signals: StopSignals): Promise<void> {
  const server = await startServer(loadConfig(environment));
  await whenAborted(signals.stop);
  await Promise.race([server.stop(), whenAborted(signals.force)]);
}
