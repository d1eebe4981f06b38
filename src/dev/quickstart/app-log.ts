import { createWriteStream } from 'node:fs';
import { once } from 'node:events';
import { finished } from 'node:stream/promises';
import type { DestinationStream } from 'pino';
import { StartError } from '../../lib/errors.ts';

export interface AppLog {
  stream: DestinationStream;
  /** Flushes and closes the log. Ignores a log that has failed. */
  close(): Promise<void>;
}

/**
 * Opens the app's log. Only its owner can read it.
 * @param onError receives one message if the log can no longer be written (a full disk). The app keeps running.
 * @throws StartError if the log cannot be opened.
 */
export async function openAppLog(file: string, onError: (text: string) => void): Promise<AppLog> {
  const stream = createWriteStream(file, { flags: 'a', mode: 0o600 });
  await once(stream, 'open').catch((error: unknown) => {
    throw new StartError(`${file} cannot be written: ${(error as Error).message}`);
  });
  // Without a listener, the error would end the process and leave the started servers running.
  stream.on('error', (error) => {
    onError(`${file} can no longer be written (${error.message}). Ops Center keeps running without its log.`);
  });
  return {
    stream,
    async close() {
      stream.end();
      await finished(stream).catch(() => undefined);
    },
  };
}
