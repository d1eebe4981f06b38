import { execFile } from 'node:child_process';
import { constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface NamedPipe {
  /** The end to write to, for a child. The caller closes it. */
  descriptor: number;
  /** Ends when every copy of the other end is closed. */
  readable: Readable;
}

/**
 * Makes a pipe for the output of a child. Those that Node makes for its children are sockets, which a program
 * cannot open again as `/dev/stderr`, as shell scripts do. It has no name any more when this is done.
 */
export async function createNamedPipe(): Promise<NamedPipe> {
  const folder = mkdtempSync(path.join(tmpdir(), `ops-center-pipe-${process.pid}-`));
  const name = path.join(folder, 'pipe');
  try {
    // Anybody may open it again by its descriptor; the folder keeps others from its name.
    await run('mkfifo', ['-m', '666', name], { env: {}, cwd: '/' });
    const reading = openSync(name, constants.O_RDONLY | constants.O_NONBLOCK);
    const readable = new Socket({ fd: reading, readable: true, writable: false });
    return { descriptor: openSync(name, constants.O_WRONLY), readable };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
