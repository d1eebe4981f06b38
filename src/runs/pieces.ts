import { isUtf8 } from 'node:buffer';
import type { Stream } from '../runners/runner.ts';
import type { Output } from './events.ts';

/** Turns the bytes of a run into pieces of output. */
export interface Pieces {
  /** Takes bytes as they come; what is not told at once is told within {@link REST_MS}. */
  write(stream: Stream, bytes: Uint8Array): void;
  /** Tells what is waiting, but for the beginning of a character. */
  flush(): void;
  /** Tells everything. */
  end(): void;
}

/** A program that writes byte by byte must not cost an event for each. */
const REST_MS = 8;
const MOST_BYTES = 64 * 1024;
const EMPTY = Buffer.alloc(0);

/**
 * Builds them for one run. The first bytes after a rest are told at once; what follows closely is gathered. A
 * character whose bytes come apart is held back, each stream for itself; bytes that are no UTF-8 go as base64.
 */
export function createPieces(tell: (output: Output) => void): Pieces {
  const held: Record<Stream, Buffer> = { stdout: EMPTY, stderr: EMPTY };
  let waiting: { stream: Stream; chunks: Uint8Array[]; bytes: number } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let toldAtMs = -Infinity;

  function tellBytes(stream: Stream, bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const end = at + wholeCharacters(bytes.subarray(at, at + MOST_BYTES));
      // Only the bytes of a lone beginning are left: they are no characters.
      const data = bytes.subarray(at, end > at ? end : bytes.length);
      tell({ type: 'output', stream, encoding: isUtf8(data) ? 'utf8' : 'base64', data });
      at += data.length;
    }
  }

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (waiting === undefined) return;
    const { stream, chunks } = waiting;
    waiting = undefined;
    toldAtMs = performance.now();
    const bytes = joined(held[stream], chunks);
    const whole = wholeCharacters(bytes);
    held[stream] = bytes.subarray(whole);
    tellBytes(stream, bytes.subarray(0, whole));
  }

  return {
    write(stream, bytes) {
      if (bytes.length === 0) return;
      if (waiting !== undefined && waiting.stream !== stream) flush();
      waiting ??= { stream, chunks: [], bytes: 0 };
      waiting.chunks.push(bytes);
      waiting.bytes += bytes.length;
      const restMs = toldAtMs + REST_MS - performance.now();
      if (restMs <= 0 || waiting.bytes >= MOST_BYTES) flush();
      else timer ??= setTimeout(flush, restMs);
    },
    flush,
    end() {
      flush();
      for (const stream of ['stdout', 'stderr'] as const) {
        tellBytes(stream, held[stream]);
        held[stream] = EMPTY;
      }
    },
  };
}

/**
 * One after the other. A large chunk is not copied, since most output comes in such; a small one is, into memory of
 * its own, or a byte would keep all that the network handed over with it, or the pool that Node cuts buffers from.
 */
function joined(held: Buffer, chunks: readonly Uint8Array[]): Buffer {
  const [first] = chunks;
  const isAlone = held.length === 0 && chunks.length === 1 && first !== undefined;
  if (isAlone && first.byteLength * 2 >= first.buffer.byteLength)
    return Buffer.from(first.buffer, first.byteOffset, first.byteLength);
  const parts = [held, ...chunks];
  const all = Buffer.allocUnsafeSlow(parts.reduce((bytes, part) => bytes + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** How many of the bytes are no beginning of a character that is still to come: at most 3 fewer than all. */
function wholeCharacters(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back] ?? 0;
    if (byte >= 0xc0) return lengthByLead(byte) > back ? bytes.length - back : bytes.length;
    if (byte < 0x80) return bytes.length;
  }
  return bytes.length;
}

/** RFC 3629, section 3; bytes that begin no character stand for themselves. */
function lengthByLead(byte: number): number {
  if (byte >= 0xf8) return 1;
  return byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
}
