import type { Environment } from '../config/config.ts';
import { createLog, openStandardOutput } from '../lib/log.ts';
import { startServer } from '../server.ts';
import { endOnFatalError } from './fatal-errors.ts';
import { loadConfig } from './settings.ts';
import { whenAborted, type StopSignals } from './signals.ts';

/**
 * Production command: runs the app on the configured servers until `stop` is aborted.
 * @throws ConfigError listing all errors of the configuration.
 */
export async function serve(environment: Environment, signals: StopSignals): Promise<void> {
  const config = loadConfig(environment);
  const output = openStandardOutput();
  const log = createLog(config.logLevel, output);
  endOnFatalError(log, (text) => void process.stderr.write(`${text}\n`));
  const server = await startServer(config, { log });
  await whenAborted(signals.stop);
  await Promise.race([server.stop(), whenAborted(signals.force)]);
  await output.flush();
}
