import { getAppState, setAppState, subscribeToAppState } from '../app-state.ts';
import { pageSettings, readPageSettings } from '../page-settings.ts';

/** Between two checks when the user comes back to the tab, ms. */
const MIN_INTERVAL_MS = 600_000;
let checkedAtMs = Date.now();

/**
 * Reads which page the server has now and sets `isOutdated`.
 * @returns false if the server cannot be reached.
 */
export async function checkBuild(): Promise<boolean> {
  checkedAtMs = Date.now();
  try {
    const response = await fetch('/', { headers: { accept: 'text/html' } });
    if (!response.ok) return false;
    const page = new DOMParser().parseFromString(await response.text(), 'text/html');
    setAppState({ isOutdated: readPageSettings(page).build !== pageSettings.build });
    return true;
  } catch {
    return false;
  }
}

/** A server that was away may be a newer one now, and a tab may be open for days. */
export function watchBuild(): void {
  let { connection } = getAppState();
  subscribeToAppState(() => {
    const isBack = connection === 'lost' && getAppState().connection === 'connected';
    connection = getAppState().connection;
    if (isBack) void checkBuild();
  });
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible' && Date.now() - checkedAtMs > MIN_INTERVAL_MS)
      void checkBuild();
  });
}
