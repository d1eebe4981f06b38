import { requireNoSecrets } from './evidence/search-run.ts';
import { leaveServers, type ServersInUse } from './test-servers.ts';

/** Runs once after all tests: searches what they left behind for their secrets, while the servers still run. */
export default async function globalTeardown(): Promise<void> {
  const folder = process.env['OPS_TEST_EVIDENCE'];
  const servers = process.env['OPS_TEST_SERVERS'];
  try {
    if (folder !== undefined && servers !== undefined)
      await requireNoSecrets(folder, JSON.parse(servers) as ServersInUse, (text) => {
        process.stderr.write(`[secrets] ${text}\n`);
      });
  } finally {
    await leaveServers();
  }
}
