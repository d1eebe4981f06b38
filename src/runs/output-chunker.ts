import { isUtf8 } from 'node:buffer';
import type { OutputStream } from '../runners/runner.ts';
import { OUTPUT_STREAMS, type OutputEvent } from './events.ts';

/** Combines the output bytes of a run into output events. */
interface OutputChunker {
  /** Emits the bytes at once or within {@link FLUSH_INTERVAL_MS}. */
  readonly write: (stream: OutputStream, bytes: Uint8Array) => void;
  /** Emits the pending bytes, except an incomplete character. */
  readonly flush: () => void;
  /** Emits all bytes, incomplete characters too. */
  readonly end: () => void;
}

/** Bytes are collected for this long, so that a program that writes single bytes does not cause one event each. */
const FLUSH_INTERVAL_MS = 8;
const MAX_CHUNK_BYTES = 64 * 1024;
const EMPTY = Buffer.alloc(0);

/**
 * For one run. The first bytes after an interval without output are emitted at once; bytes that follow within the
 * interval are collected. An incomplete UTF-8 character is held back, per stream. Bytes that are not UTF-8 are
 * emitted as base64.
 */
export function createOutputChunker(emit: (output: OutputEvent) => void): OutputChunker {
  const incomplete: Record<OutputStream, Buffer> = { stdout: EMPTY, stderr: EMPTY };
  let pending: { stream: OutputStream; chunks: Uint8Array[]; bytes: number } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let flushedAtMs = -Infinity;

  function emitBytes(stream: OutputStream, bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const end = at + countCompleteBytes(bytes.subarray(at, at + MAX_CHUNK_BYTES));
      // Only an incomplete character is left: it is emitted as base64.
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
    const completeBytes = countCompleteBytes(bytes);
    incomplete[stream] = bytes.subarray(completeBytes);
    emitBytes(stream, bytes.subarray(0, completeBytes));
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
      for (const stream of OUTPUT_STREAMS) {
        emitBytes(stream, incomplete[stream]);
        incomplete[stream] = EMPTY;
      }
    },
  };
}

/**
 * A single large chunk is not copied, since most output arrives in such chunks. A small one is copied into its own
 * memory: otherwise one byte would retain the whole network buffer, or Node's buffer pool.
 */
function concatChunks(incomplete: Buffer, chunks: readonly Uint8Array[]): Buffer {
  const [first] = chunks;
  const isSingle = incomplete.length === 0 && chunks.length === 1 && first !== undefined;
  if (isSingle && first.byteLength * 2 >= first.buffer.byteLength)
    return Buffer.from(first.buffer, first.byteOffset, first.byteLength);
  const parts = [incomplete, ...chunks];
  const all = Buffer.allocUnsafeSlow(parts.reduce((bytes, part) => bytes + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Number of bytes without an incomplete character at the end: at most 3 fewer than all. */
function countCompleteBytes(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back] ?? 0;
    if (byte >= 0xc0) return lengthByLeadByte(byte) > back ? bytes.length - back : bytes.length;
    if (byte < 0x80) return bytes.length;
  }
  return bytes.length;
}

/** Length of a character by its first byte: RFC 3629, section 3; 1 for a byte that begins no character. */
function lengthByLeadByte(byte: number): number {
  if (byte >= 0xf8) return 1;
  return byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
}
