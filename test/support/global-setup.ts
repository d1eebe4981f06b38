import { createEvidenceFolder } from './evidence/search-run.ts';
import path from 'node:path';
import { acquireServers, releaseServers, TEST_DATA_DIR } from './postgres-and-keycloak.ts';

/**
 * Runs once before all tests, outside jest's sandbox. It passes data to test files through the environment, which
 * worker processes inherit.
 */
export default async function globalSetup(): Promise<void> {
  const startedMs = Date.now();
  const say = (text: string) => {
    const seconds = Math.round((Date.now() - startedMs) / 1000);
    process.stderr.write(`[test set-up ${seconds} s] ${text}\n`);
  };
  const waiting = setInterval(() => {
    say('still waiting for the servers');
  }, 15_000);
  const interrupted = () => {
    void releaseServers(false).finally(() => process.exit(130));
  };
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  try {
    say('starting Postgres and Keycloak');
    process.env['OPS_TEST_SERVERS'] = JSON.stringify(await acquireServers(say));
    process.env['OPS_TEST_EVIDENCE'] = createEvidenceFolder();
    // Halves the start of the commands and workers that tests start.
    process.env['NODE_COMPILE_CACHE'] = path.join(TEST_DATA_DIR, 'compile-cache');
    say('ready');
  } catch (error) {
    // jest does not run the teardown after a failed set-up.
    await releaseServers(false);
    throw error;
  } finally {
    clearInterval(waiting);
  }
}
