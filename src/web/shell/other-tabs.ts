import { setAppState } from '../app-state.ts';
import { queryClient } from '../api/query-client.ts';
import { clearDrafts } from '../drafts.ts';

/** All tabs of the browser have one session cookie, so what happens to it in one tab concerns the others. */
const channel = new BroadcastChannel('ops-center');
const SIGNING_OUT = 'signing-out';

/**
 * Announces who is signed in, and follows what other tabs announce: another user's page is replaced, and a page whose
 * session has ended goes on when its user signs in again.
 * @returns a function that stops it.
 */
export function followOtherTabs(userId: string): () => void {
  clearDrafts(userId);
  channel.postMessage({ userId });
  channel.onmessage = ({ data }: MessageEvent<{ userId: string | null }>) => {
    if (data.userId !== userId) {
      leaveUser(data.userId);
      return;
    }
    setAppState({ session: 'active' });
    void queryClient.invalidateQueries();
  };
  return () => {
    channel.onmessage = null;
  };
}

/** Removes what the page holds about its user, and loads it again for the one who is signed in now. */
export function leaveUser(nextUserId: string | null): void {
  clearDrafts(nextUserId ?? undefined);
  queryClient.clear();
  window.location.reload();
}

/** Before the sign-out form is sent. */
export function beginSignOut(): void {
  clearDrafts();
  sessionStorage.setItem(SIGNING_OUT, 'true');
}

/** On the landing. After a session that ended by itself, the pages of other tabs stay, with what was typed there. */
export function finishSignOut(): void {
  if (sessionStorage.getItem(SIGNING_OUT) === null) return;
  sessionStorage.removeItem(SIGNING_OUT);
  channel.postMessage({ userId: null });
}
