import type { ServerResponse } from 'node:http';

/**
 * Calls back once when an answer is over: written out to its last byte, or its client gone. At once where
 * that has happened already.
 */
export function onResponseClosed(response: ServerResponse, callback: () => void): void {
  if (response.destroyed) callback();
  else response.once('close', callback);
}
