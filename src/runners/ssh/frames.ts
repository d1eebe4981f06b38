/**
 * A message of the launcher or the watcher within a program's output: the marker (random, new for each run), a
 * letter, optionally a word, and a newline.
 */
export type Frame =
  /** The program starts. Earlier bytes on this stream are output of the account's shell. */
  | { kind: 'started' }
  /** The program was not started. */
  | { kind: 'refused'; reason: string; isClean: boolean }
  /** The processes of the run were killed and searched for. */
  | { kind: 'ended'; isClean: boolean };

export interface FrameReader {
  /** @returns the output and the frames in these bytes. Bytes that may begin a frame are held until the next call. */
  read(chunk: Buffer): { output: Buffer; frames: Frame[] };
  /** Call at the end of the stream. @returns the bytes that were held. */
  flush(): Buffer;
}

const MAX_FRAME_BYTES = 64;
const EMPTY = Buffer.alloc(0);

/** Separates frames and output of one stream of a channel. */
export function createFrameReader(marker: string): FrameReader {
  const needle = Buffer.from(`\x1e${marker}`);
  let pending: Buffer = EMPTY;
  let isStarted = false;

  /** Extracts the first complete frame; undefined when there is none. */
  function extractFrame(bytes: Buffer): { before: Buffer; frame: Frame; after: Buffer } | undefined {
    for (let start = bytes.indexOf(needle); start !== -1; start = bytes.indexOf(needle, start + 1)) {
      const end = bytes.indexOf('\n', start);
      if (end === -1) return undefined;
      const frame = readFrame(bytes.toString('latin1', start + needle.length, end));
      if (frame !== undefined)
        return { before: bytes.subarray(0, start), frame, after: bytes.subarray(end + 1) };
    }
    return undefined;
  }

  return {
    read(chunk) {
      let bytes = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      const output: Buffer[] = [];
      const frames: Frame[] = [];
      for (let found = extractFrame(bytes); found !== undefined; found = extractFrame(bytes)) {
        if (isStarted) output.push(found.before);
        if (found.frame.kind === 'started') isStarted = true;
        frames.push(found.frame);
        bytes = found.after;
      }
      const pendingStart = findPartialFrame(bytes, needle);
      if (isStarted) output.push(bytes.subarray(0, pendingStart));
      pending = bytes.subarray(pendingStart);
      return { output: Buffer.concat(output), frames };
    },
    flush() {
      const last = isStarted ? pending : EMPTY;
      pending = EMPTY;
      return last;
    },
  };
}

function readFrame(text: string): Frame | undefined {
  const match = /^(?:(S)|E([VU])([a-z]+)|([VU]))$/.exec(text);
  if (match === null) return undefined;
  const [, started, refusedState, reason = '', endedState] = match;
  if (started !== undefined) return { kind: 'started' };
  if (endedState !== undefined) return { kind: 'ended', isClean: endedState === 'V' };
  return { kind: 'refused', reason, isClean: refusedState === 'V' };
}

/** The offset at which an incomplete frame may begin; the length of `bytes` if there is none. */
function findPartialFrame(bytes: Buffer, needle: Buffer): number {
  const whole = bytes.lastIndexOf(needle);
  if (whole !== -1 && bytes.length - whole <= MAX_FRAME_BYTES) return whole;
  for (let length = Math.min(needle.length - 1, bytes.length); length > 0; length -= 1) {
    if (bytes.subarray(-length).equals(needle.subarray(0, length))) return bytes.length - length;
  }
  return bytes.length;
}
