import { assertNoSecrets } from './evidence/search-run.ts';
import { summarizeServersUsed } from './servers-used.ts';
import { releaseServers, type ServersInUse } from './postgres-and-keycloak.ts';

/** Runs once after all tests: prints which servers were used, and searches logs, responses and databases for secrets. */
export default async function globalTeardown(): Promise<void> {
  const folder = process.env['OPS_TEST_EVIDENCE'];
  const servers = process.env['OPS_TEST_SERVERS'];
  if (folder !== undefined)
    for (const line of summarizeServersUsed(folder)) process.stderr.write(`[servers used] ${line}\n`);
  try {
    if (folder !== undefined && servers !== undefined)
      await assertNoSecrets(folder, JSON.parse(servers) as ServersInUse, (text) => {
        process.stderr.write(`[secrets] ${text}\n`);
      });
  } finally {
    await releaseServers(true);
  }
}
