import { once } from 'node:events';
import { pino, type DestinationStream } from 'pino';

/** Passes lines to a file in the background, in order. */
export interface LogStream extends DestinationStream {
  /** Resolves when what was written so far is in the file, has failed, or after 5 s. */
  flush(): Promise<void>;
  /** Blocks until what was written so far is in the file. Only for the end of a process. */
  flushSync(): void;
  /** Opens the path again, e.g. after the file was renamed. Lines are in one of the two files, and whole. */
  reopen(): void;
  /** Flushes and closes the file. Later lines are dropped. */
  close(): Promise<void>;
}

export interface LogStreamOptions {
  /** An open file, such as 1 for standard output, or the path of a file, which is appended to. */
  to: number | string;
  /** Receives the first error, e.g. of a full disk. Later lines are dropped, and the process goes on. */
  onError: (error: Error) => void;
  /** Receives the number of bytes after each write. */
  onWritten?: (bytes: number) => void;
}

/** What a killed process can lose. Lines are passed on in larger pieces, because each write costs a system call. */
const MAX_DELAY_MS = 50;
const MIN_BYTES = 4_096;
/** A reader of standard output that has stopped reading must not prevent the end of the process. */
const MAX_FLUSH_MS = 5_000;
const OWNER_ONLY = 0o600;

/**
 * Opens a log stream. The library writes what is left when the process exits, also after `process.exit` and after an
 * error that nothing has caught.
 */
export function createLogStream({ to, onError, onWritten }: LogStreamOptions): LogStream {
  // Not `fd`: with it the library reads process.stdout, which makes a pipe non-blocking, and a block that a full pipe has
  // refused would be lost when the process exits.
  const target = { dest: to, ...(typeof to === 'string' ? { mode: OWNER_ONLY } : {}) };
  const writer = pino.destination({ ...target, sync: false, minLength: MIN_BYTES });
  let isOpen = true;
  let timer: NodeJS.Timeout | undefined;
  writer.on('error', (error: Error) => {
    if (!isOpen) return;
    isOpen = false;
    // Otherwise the library would write the lines that have failed once more at the exit of the process, and throw.
    writer.destroy();
    onError(error);
  });
  if (onWritten !== undefined) writer.on('write', onWritten);
  const passOn = () => {
    timer = undefined;
    if (isOpen) writer.flush();
  };
  const passOnAll = () =>
    new Promise<void>((resolve) => {
      if (isOpen) writer.flush(() => resolve());
      else resolve();
    });

  async function flush(): Promise<void> {
    let timeout: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timeout = setTimeout(resolve, MAX_FLUSH_MS);
    });
    // Twice, since the library reports what is left below its minimum as written.
    await Promise.race([passOnAll().then(passOnAll), late]);
    clearTimeout(timeout);
  }

  return {
    flush,
    write(line) {
      if (!isOpen) return;
      writer.write(line);
      timer ??= setTimeout(passOn, MAX_DELAY_MS).unref();
    },
    flushSync() {
      if (isOpen) writer.flushSync();
    },
    reopen() {
      if (isOpen) writer.reopen();
    },
    async close() {
      await flush();
      if (!isOpen) return;
      isOpen = false;
      const closed = once(writer, 'close');
      writer.end();
      await closed.catch(() => undefined);
    },
  };
}
