import startTestServers from '../global-setup.ts';
import { findSkipReason, HOST_ENVIRONMENT } from '../host-availability.ts';
import { ensureSshServers } from '../host-processes.ts';
import { startSharedBrowser } from './shared-browser.ts';

/** Runs once before all tests of the page. */
export default async function globalSetup(): Promise<void> {
  // Before the browser: it ends its requests when network interfaces are added, as those of the SSH servers are.
  if (findSkipReason('ssh', HOST_ENVIRONMENT) === undefined) ensureSshServers();
  await Promise.all([startTestServers(), startSharedBrowser()]);
}
