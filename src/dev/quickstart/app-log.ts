import { createWriteStream } from 'node:fs';
import { once } from 'node:events';
import { finished } from 'node:stream/promises';
import type { DestinationStream } from 'pino';
import { StartError } from '../../cli/start-error.ts';

export interface AppLog {
  stream: DestinationStream;
  /** Writes out what is left; a log that has failed is left as it is. */
  close(): Promise<void>;
}

/**
 * Opens the app's log, readable for its owner alone.
 * @param onError is told once when it can no longer be written (a full disk): the app runs on without it.
 * @throws StartError when it cannot be opened.
 */
export async function openAppLog(file: string, onError: (text: string) => void): Promise<AppLog> {
  const stream = createWriteStream(file, { flags: 'a', mode: 0o600 });
  await once(stream, 'open').catch((error: unknown) => {
    throw new StartError(`${file} cannot be written: ${(error as Error).message}`);
  });
  // Without a listener the error would end the process, and what was started would be left running.
  stream.on('error', (error) => {
    onError(`${file} can no longer be written (${error.message}). Ops Center runs on without its log.`);
  });
  return {
    stream,
    async close() {
      stream.end();
      await finished(stream).catch(() => undefined);
    },
  };
}
