import path from 'node:path';
import { buildPage } from '../../src/dev/quickstart/page.ts';
import { createEvidenceFolder } from './evidence/search-run.ts';
import { acquireServers, releaseServers, TEST_DATA_DIR } from './postgres-and-keycloak.ts';
import { writeServersInUse } from './servers-file.ts';

/**
 * Runs once before all tests, outside jest's sandbox. It passes data to test files through the environment, which
 * worker processes inherit. Postgres and Keycloak start meanwhile: tests that need none begin at once, the others wait
 * for the file of `servers-file.ts`.
 */
export default async function globalSetup(): Promise<void> {
  const startedMs = Date.now();
  const say = (text: string) => {
    const seconds = Math.round((Date.now() - startedMs) / 1000);
    process.stderr.write(`[test set-up ${seconds} s] ${text}\n`);
  };
  const interrupted = () => {
    void releaseServers(false).finally(() => process.exit(130));
  };
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  say('starting Postgres and Keycloak');
  const { started } = await acquireServers(say);
  const folder = createEvidenceFolder();
  process.env['OPS_TEST_EVIDENCE'] = folder;
  process.env['OPS_TEST_SERVERS'] = path.join(folder, 'servers.json');
  // Halves the start of the commands and workers that tests start.
  process.env['NODE_COMPILE_CACHE'] = path.join(TEST_DATA_DIR, 'compile-cache');
  Promise.all([started, buildPage()]).then(
    ([servers]) => {
      writeServersInUse(servers);
      say('ready');
    },
    (error: unknown) => {
      say(`The set-up failed: ${error instanceof Error ? error.message : String(error)}`);
      void releaseServers(false).finally(() => process.exit(1));
    },
  );
}
