import { evidence } from './evidence.ts';
import type { ServersInUse } from './postgres-and-keycloak.ts';

/** The Postgres and the Keycloak that `global-setup.ts` has started for this run. */
export const servers = readServers();

function readServers(): ServersInUse {
  const text = process.env['OPS_TEST_SERVERS'];
  if (text === undefined) throw new Error('jest starts the test servers: run `npm test -- <path>`');
  const found = JSON.parse(text) as ServersInUse;
  evidence.registerSecret('password', found.adminPassword);
  for (const url of [found.superuserUrl, found.ownerUrl, found.appUrl])
    evidence.registerSecret('password', decodeURIComponent(new URL(url).password));
  return found;
}
