import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { createNamedPipe } from '../../lib/named-pipe.ts';

/** Files and pipes that are passed to a sandbox as open descriptors. Their names are removed before it runs. */
export interface Staging {
  /** @returns a descriptor from which the content can be read. */
  file(content: Uint8Array): number;
  /** @returns a descriptor of an existing file. */
  open(name: string): number;
  /** @returns the descriptor of the write end, and the read end as a stream. */
  pipe(): Promise<{ descriptor: number; readable: Readable }>;
  /** Closes the descriptors of this process. Call it once they were passed on or are not needed. */
  close(): void;
}

export function createStaging(): Staging {
  const descriptors: number[] = [];
  const track = (descriptor: number) => {
    descriptors.push(descriptor);
    return descriptor;
  };
  return {
    file: (content) => track(openUnnamedFile(content)),
    open: (name) => track(openSync(name, 'r')),
    async pipe() {
      const pipe = await createNamedPipe();
      track(pipe.descriptor);
      return pipe;
    },
    close() {
      for (const descriptor of descriptors.splice(0)) closeSync(descriptor);
    },
  };
}

function openUnnamedFile(content: Uint8Array): number {
  const folder = mkdtempSync(path.join(tmpdir(), `ops-center-file-${process.pid}-`));
  const name = path.join(folder, 'file');
  try {
    // Readable for all, because the program's uid may reopen it as /dev/stdin. The folder is closed to other users.
    writeFileSync(name, content, { mode: 0o444, flag: 'wx' });
    return openSync(name, 'r');
  } finally {
    rmSync(folder, { recursive: true });
  }
}
