import { isUtf8 } from 'node:buffer';
import type { OutputStream } from '../runners/runner.ts';
import type { OutputEvent } from './events.ts';

/** Turns the bytes of a run into pieces of output. */
export interface OutputChunker {
  /** Takes bytes as they come; what is not told at once is told within {@link FLUSH_INTERVAL_MS}. */
  write(stream: OutputStream, bytes: Uint8Array): void;
  /** Tells what is waiting, but for the beginning of a character. */
  flush(): void;
  /** Tells everything. */
  end(): void;
}

/** A program that writes byte by byte must not cost an event for each. */
const FLUSH_INTERVAL_MS = 8;
const MAX_CHUNK_BYTES = 64 * 1024;
const EMPTY = Buffer.alloc(0);

/**
 * Builds them for one run. The first bytes after a rest are told at once; what follows closely is gathered. A
 * character whose bytes come apart is held back, each stream for itself; bytes that are no UTF-8 go as base64.
 */
export function createOutputChunker(emit: (output: OutputEvent) => void): OutputChunker {
  const incomplete: Record<OutputStream, Buffer> = { stdout: EMPTY, stderr: EMPTY };
  let pending: { stream: OutputStream; chunks: Uint8Array[]; bytes: number } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let flushedAtMs = -Infinity;

  function emitBytes(stream: OutputStream, bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const end = at + countCompleteBytes(bytes.subarray(at, at + MAX_CHUNK_BYTES));
      // Only the bytes of a lone beginning are left: they are no characters.
      const data = bytes.subarray(at, end > at ? end : bytes.length);
      emit({ type: 'output', stream, encoding: isUtf8(data) ? 'utf8' : 'base64', data });
      at += data.length;
    }
  }

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (pending === undefined) return;
    const { stream, chunks } = pending;
    pending = undefined;
    flushedAtMs = performance.now();
    const bytes = concatChunks(incomplete[stream], chunks);
    const whole = countCompleteBytes(bytes);
    incomplete[stream] = bytes.subarray(whole);
    emitBytes(stream, bytes.subarray(0, whole));
  }

  return {
    write(stream, bytes) {
      if (bytes.length === 0) return;
      if (pending !== undefined && pending.stream !== stream) flush();
      pending ??= { stream, chunks: [], bytes: 0 };
      pending.chunks.push(bytes);
      pending.bytes += bytes.length;
      const delayMs = flushedAtMs + FLUSH_INTERVAL_MS - performance.now();
      if (delayMs <= 0 || pending.bytes >= MAX_CHUNK_BYTES) flush();
      else timer ??= setTimeout(flush, delayMs);
    },
    flush,
    end() {
      flush();
      for (const stream of ['stdout', 'stderr'] as const) {
        emitBytes(stream, incomplete[stream]);
        incomplete[stream] = EMPTY;
      }
    },
  };
}

/**
 * One after the other. A large chunk is not copied, since most output comes in such; a small one is, into memory of
 * its own, or a byte would keep all that the network handed over with it, or the pool that Node cuts buffers from.
 */
function concatChunks(held: Buffer, chunks: readonly Uint8Array[]): Buffer {
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
function countCompleteBytes(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back] ?? 0;
    if (byte >= 0xc0) return lengthByLeadByte(byte) > back ? bytes.length - back : bytes.length;
    if (byte < 0x80) return bytes.length;
  }
  return bytes.length;
}

/** RFC 3629, section 3; bytes that begin no character stand for themselves. */
function lengthByLeadByte(byte: number): number {
  if (byte >= 0xf8) return 1;
  return byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
}
