import type { Environment } from '../config.ts';
import { startServer } from '../server.ts';
import { readSettings } from './settings.ts';
import { aborted, type StopSignals } from './signals.ts';

/**
 * The production command: starts the app on what is configured and nothing else, until it is told to stop.
 * @throws ConfigError listing every fault of the configuration at once.
 */
export async function serve(environment: Environment, signals: StopSignals): Promise<void> {
  const server = await startServer(readSettings(environment));
  await aborted(signals.stop);
  await Promise.race([server.stop(), aborted(signals.hurry)]);
}
