import { useSyncExternalStore } from 'react';

/** What calls learn about the whole page, and the shell shows. */
export interface AppState {
  /** `ended` after a call failed with 401. */
  session: 'active' | 'ended';
  /** `lost` after a call got no response, or one that says that a part of the server is away. */
  connection: 'connected' | 'lost';
  /** True when the server has a newer page than the one that is open. */
  isOutdated: boolean;
}

let state: AppState = { session: 'active', connection: 'connected', isOutdated: false };
const listeners = new Set<() => void>();

export function getAppState(): AppState {
  return state;
}

export function setAppState(change: Partial<AppState>): void {
  const next = { ...state, ...change };
  if (Object.entries(next).every(([name, value]) => state[name as keyof AppState] === value)) return;
  state = next;
  for (const listener of listeners) listener();
}

/** @returns a function that ends the subscription. */
export function subscribeToAppState(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useAppState(): AppState {
  return useSyncExternalStore(subscribeToAppState, getAppState);
}
