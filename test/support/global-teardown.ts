import { leaveServers } from './test-servers.ts';

/** Runs once after all tests. */
export default async function globalTeardown(): Promise<void> {
  await leaveServers();
}
