import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { createNamedPipe } from '../../lib/named-pipe.ts';

/** Files and pipes that a sandbox is handed as open descriptors: they have no name by the time it runs. */
export interface Staging {
  /** A descriptor from which the content can be read. */
  file(content: Uint8Array): number;
  /** A descriptor of a file that is there. */
  open(name: string): number;
  /** The end to write to as a descriptor, and the end to read from. */
  pipe(): Promise<{ descriptor: number; readable: Readable }>;
  /** Closes our copies of the descriptors, once they were passed on or are of no use. */
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
    // A program with another uid may open it again as /dev/stdin; the folder keeps others from its name.
    writeFileSync(name, content, { mode: 0o444, flag: 'wx' });
    return openSync(name, 'r');
  } finally {
    rmSync(folder, { recursive: true });
  }
}
