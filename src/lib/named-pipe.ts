import { execFile } from 'node:child_process';
import { constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface NamedPipe {
  /** The write end, for a child process. The caller closes it. */
  descriptor: number;
  /** Ends when every copy of the write end is closed. */
  readable: Readable;
}

/**
 * Creates a pipe for a child's output. Node's own pipes are sockets, which a child cannot open again as
 * `/dev/stderr`, as shell scripts do. The pipe's name is removed before this resolves.
 */
export async function createNamedPipe(): Promise<NamedPipe> {
  const folder = mkdtempSync(path.join(tmpdir(), `ops-center-pipe-${process.pid}-`));
  const name = path.join(folder, 'pipe');
  try {
    // Every user may reopen it through the descriptor; the folder's mode protects the name.
    await run('mkfifo', ['-m', '666', name], { env: {}, cwd: '/' });
    const reading = openSync(name, constants.O_RDONLY | constants.O_NONBLOCK);
    const readable = new Socket({ fd: reading, readable: true, writable: false });
    return { descriptor: openSync(name, constants.O_WRONLY), readable };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
