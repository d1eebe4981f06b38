import type { ServerResponse } from 'node:http';

/**
 * Calls back once when a response is closed, either completely sent or because the client disconnected. Calls back
 * immediately when it is already closed.
 */
export function onResponseClosed(response: ServerResponse, callback: () => void): void {
  if (response.destroyed) callback();
  else response.once('close', callback);
}
