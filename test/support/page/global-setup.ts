import startTestServers from '../global-setup.ts';
import { startSharedBrowser } from './shared-browser.ts';

/** Runs once before all tests of the page. */
export default async function globalSetup(): Promise<void> {
  await Promise.all([startTestServers(), startSharedBrowser()]);
}
