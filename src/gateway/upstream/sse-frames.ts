import type { Readable } from 'node:stream';
import { upstreamMalformed } from '../../lib/net/upstream-body.ts';
import { createByteBuffer } from './byte-buffer.ts';

const LF = 0x0a;
const CR = 0x0d;
/** The longest blank line is CR LF CR LF, so its first 3 bytes can be at the end of the previous chunk. */
const OVERLAP_BYTES = 3;

/**
 * Splits a stream of server-sent events into complete frames. The bytes stay unchanged, blank line included.
 * An incomplete frame is held back, so that an error event never follows half a frame. Bytes without a final blank
 * line come last, when the stream ends cleanly. Each byte is read once; time and memory are linear in the number of
 * bytes for any chunk size.
 * @param maxFrameBytes a longer frame throws `upstream_malformed`.
 * Source of the grammar: WHATWG HTML, "Parsing an event stream" (LF, CRLF or CR end a line).
 */
export async function* readSseFrames(body: Readable, maxFrameBytes: number): AsyncGenerator<Buffer> {
  const pending = createByteBuffer();
  for await (const chunk of body as AsyncIterable<Buffer>) {
    const overlap = pending.tail(OVERLAP_BYTES);
    const end = lastFrameEnd(overlap.length === 0 ? chunk : Buffer.concat([overlap, chunk])) - overlap.length;
    if (end > 0) yield pending.takeAll(chunk.subarray(0, end));
    pending.append(chunk.subarray(Math.max(end, 0)));
    if (pending.length > maxFrameBytes)
      throw upstreamMalformed('An event of the provider exceeds the size limit.');
  }
  if (pending.length > 0) yield pending.takeAll(Buffer.alloc(0));
}

/** The offset after the last blank line; 0 when there is none. */
function lastFrameEnd(bytes: Buffer): number {
  for (let at = bytes.length; at > 1; at -= 1) {
    const last = bytes[at - 1];
    if (last !== LF && last !== CR) continue;
    const before = bytes[at - 2];
    if (last === LF && (before === LF || (before === CR && bytes[at - 3] === LF))) return at;
    if (last === CR && before === CR) return at;
  }
  return 0;
}

/** The `data` of each event in a sequence of complete frames. Comments and other fields are dropped. */
export function parseSseData(frames: Buffer): string[] {
  return frames
    .toString('utf8')
    .split(/\r\n\r\n|\n\n|\r\r/)
    .map((frame) =>
      frame
        .split(/\r\n|\n|\r/)
        .filter((line) => line.startsWith('data:'))
        .map((line) => line.slice(5).replace(/^ /, ''))
        .join('\n'),
    )
    .filter((data) => data !== '');
}
