import stopTestServers from '../global-teardown.ts';
import { stopSharedBrowser } from './shared-browser.ts';

/** Runs once after all tests of the page. */
export default async function globalTeardown(): Promise<void> {
  await stopSharedBrowser();
  await stopTestServers();
}
