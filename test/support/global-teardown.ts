import { assertNoSecrets } from './evidence/search-run.ts';
import { releaseServers } from './postgres-and-keycloak.ts';
import { readServersInUse } from './servers-file.ts';
import { summarizeServersUsed } from './servers-used.ts';

/** Runs once after all tests: prints which servers were used, and searches logs, responses and databases for secrets. */
export default async function globalTeardown(): Promise<void> {
  const folder = process.env['OPS_TEST_EVIDENCE'];
  if (folder !== undefined)
    for (const line of summarizeServersUsed(folder)) process.stderr.write(`[servers used] ${line}\n`);
  try {
    if (folder !== undefined)
      await assertNoSecrets(folder, await readServersInUse(), (text) => {
        process.stderr.write(`[secrets] ${text}\n`);
      });
  } finally {
    await releaseServers(true);
  }
}
