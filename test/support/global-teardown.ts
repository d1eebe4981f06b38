import { assertNoSecrets } from './evidence/search-run.ts';
import { summarizeServersUsed } from './servers-used.ts';
import { releaseServers, type ServersInUse } from './test-servers.ts';

/** Runs once after all tests: says which servers they met, and searches what they left for their secrets while the servers still run. */
export default async function globalTeardown(): Promise<void> {
  const folder = process.env['OPS_TEST_EVIDENCE'];
  const servers = process.env['OPS_TEST_SERVERS'];
  if (folder !== undefined)
    for (const line of summarizeServersUsed(folder)) process.stderr.write(`[servers met] ${line}\n`);
  try {
    if (folder !== undefined && servers !== undefined)
      await assertNoSecrets(folder, JSON.parse(servers) as ServersInUse, (text) => {
        process.stderr.write(`[secrets] ${text}\n`);
      });
  } finally {
    await releaseServers(true);
  }
}
