import { closeSync, existsSync, openSync, renameSync, statSync } from 'node:fs';
import { StartError } from '../../lib/errors.ts';
import { createLogStream, type LogStream } from '../../lib/log-stream.ts';

/** `app.log` and older files: `app.log.1`, the newest of them, to `app.log.4`. */
const MAX_FILES = 5;
const MAX_FILE_BYTES = 10 * 1024 * 1024;
/** Left free in a file for the piece that is written when it is found full, and for the last lines of a process. */
const RESERVED_BYTES = 256 * 1024;
const OWNER_ONLY = 0o600;

/**
 * Opens the app's log. Only its owner can read it. A full file is renamed, so that `tail -F` follows the log, and a
 * process that is killed at any time leaves whole files.
 * @param onError receives one message if the log can no longer be written (a full disk). The app keeps running.
 * @throws StartError if the log cannot be opened.
 */
export function openAppLog(file: string, onError: (text: string) => void): LogStream {
  try {
    closeSync(openSync(file, 'a', OWNER_ONLY));
  } catch (error) {
    throw new StartError(`${file} cannot be written: ${(error as Error).message}`);
  }
  let bytes = statSync(file).size;
  const isFull = () => bytes >= MAX_FILE_BYTES - RESERVED_BYTES;
  const rotate = () => {
    bytes = 0;
    try {
      renameFiles(file);
    } catch (error) {
      onError(`${file} is too large and cannot be renamed (${(error as Error).message}).`);
    }
  };
  if (isFull()) rotate();
  const stream = createLogStream({
    to: file,
    onError: ({ message }) => {
      onError(`${file} can no longer be written (${message}). Ops Center keeps running without its log.`);
    },
    onWritten(written) {
      bytes += written;
      if (!isFull()) return;
      rotate();
      stream.reopen();
    },
  });
  return stream;
}

/** Gives each file the next number. The oldest file is replaced. */
function renameFiles(file: string): void {
  const names = Array.from({ length: MAX_FILES }, (_, number) => (number === 0 ? file : `${file}.${number}`));
  for (let number = MAX_FILES - 1; number > 0; number -= 1) {
    const [newer, older] = [names[number - 1] ?? '', names[number] ?? ''];
    if (existsSync(newer)) renameSync(newer, older);
  }
}
