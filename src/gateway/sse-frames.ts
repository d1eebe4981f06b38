import type { Readable } from 'node:stream';
import { AppError } from '../lib/errors.ts';

const LF = 0x0a;
const CR = 0x0d;

/**
 * Cuts a stream of server-sent events into whole frames, bytes unchanged, blank line included. A frame that
 * is not complete is held back, so that an error event can follow it without being glued to half a frame.
 * The rest without a blank line comes last, when the stream ends cleanly.
 * @param maxFrameBytes a longer frame throws `upstream_malformed`.
 * Source of the grammar: WHATWG HTML, "Parsing an event stream" (LF, CRLF or CR end a line).
 */
export async function* sseFrames(body: Readable, maxFrameBytes: number): AsyncGenerator<Buffer> {
  let held: Buffer = Buffer.alloc(0);
  for await (const chunk of body as AsyncIterable<Buffer>) {
    // Looking again at the last 3 held bytes finds a blank line that the chunks have split.
    const from = Math.max(held.length - 3, 0);
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    const end = lastFrameEnd(held, from);
    if (end > 0) {
      yield held.subarray(0, end);
      held = held.subarray(end);
    }
    if (held.length > maxFrameBytes) {
      throw new AppError('upstream_malformed', 'The provider sent an event that is longer than is accepted.');
    }
  }
  if (held.length > 0) yield held;
}

/** The offset behind the last blank line at or after `from`; 0 when there is none. */
function lastFrameEnd(bytes: Buffer, from: number): number {
  for (let at = bytes.length; at > from; at -= 1) {
    const last = bytes[at - 1];
    if (last !== LF && last !== CR) continue;
    const before = bytes[at - 2];
    if (last === LF && (before === LF || (before === CR && bytes[at - 3] === LF))) return at;
    if (last === CR && before === CR) return at;
  }
  return 0;
}

/** The `data` of each event in a run of whole frames, as text; comments and other fields are left out. */
export function sseData(frames: Buffer): string[] {
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
