import { evidence } from './evidence.ts';
import type { ServersInUse } from './postgres-and-keycloak.ts';
import { readServersInUse } from './servers-file.ts';

/** The Postgres and the Keycloak that `global-setup.ts` starts for this run. A file that imports this waits for them. */
export const servers = await readServers();

async function readServers(): Promise<ServersInUse> {
  const found = await readServersInUse();
  evidence.registerSecret('password', found.adminPassword);
  for (const url of [found.superuserUrl, found.ownerUrl, found.appUrl])
    evidence.registerSecret('password', decodeURIComponent(new URL(url).password));
  return found;
}
