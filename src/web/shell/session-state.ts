import { useSyncExternalStore } from 'react';

type State = 'active' | 'ended';
let state: State = 'active';
const listeners = new Set<() => void>();

function set(next: State): void {
  if (state === next) return;
  state = next;
  for (const listener of listeners) listener();
}

/** Whether the session that the page was opened with has ended. Set by failed calls, shown by the shell. */
export const sessionState = {
  markEnded: () => set('ended'),
  markActive: () => set('active'),
};

export function useSessionState(): State {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => state,
  );
}
