import { existsSync, readFileSync } from 'node:fs';
import { writePrivateFile } from '../../src/dev/quickstart/secrets.ts';
import type { ServersInUse } from './postgres-and-keycloak.ts';
import { until } from './until.ts';

const READY_TIMEOUT_MS = 12 * 60_000;

/** Passes the servers of this run to the test files that wait for them. */
export function writeServersInUse(servers: ServersInUse): void {
  writePrivateFile(fileName(), JSON.stringify(servers));
}

/** Waits until the servers of this run are ready. */
export async function readServersInUse(): Promise<ServersInUse> {
  const file = fileName();
  await until(() => existsSync(file), Boolean, READY_TIMEOUT_MS);
  return JSON.parse(readFileSync(file, 'utf8')) as ServersInUse;
}

function fileName(): string {
  const file = process.env['OPS_TEST_SERVERS'];
  if (file === undefined) throw new Error('jest starts the test servers: run `npm test -- <path>`');
  return file;
}
