/** What the job's script says of itself, on the container's standard error, between the program's own words. */
export interface MarkerParser {
  /** Takes a piece of standard error. @returns what of it, or of what was held back, is the program's. */
  push(data: Buffer): Buffer;
  /** What was held back and turned out to be the program's. */
  flush(): Buffer;
}

/** A record's text is a few words; anything longer is none. */
const MAX_MARKER_BYTES = 64;
const NEWLINE = 10;

/**
 * Takes records, `mark` + text + newline, out of a stream. The mark is random, so that no program writes it by
 * accident. Held back is only what may be the beginning of a record.
 */
export function createMarkerParser(markerPrefix: Buffer, onMarker: (text: string) => void): MarkerParser {
  let pending: Buffer = Buffer.alloc(0);

  function push(data: Buffer): Buffer {
    let rest = pending.length === 0 ? data : Buffer.concat([pending, data]);
    pending = Buffer.alloc(0);
    const programBytes: Buffer[] = [];
    for (;;) {
      const start = rest.indexOf(markerPrefix);
      if (start < 0) break;
      const end = rest.indexOf(NEWLINE, start + markerPrefix.length);
      if (end < 0 && rest.length - start <= markerPrefix.length + MAX_MARKER_BYTES) {
        pending = rest.subarray(start);
        return concat(programBytes, rest.subarray(0, start));
      }
      if (end < 0) break;
      programBytes.push(rest.subarray(0, start));
      onMarker(rest.toString('latin1', start + markerPrefix.length, end));
      rest = rest.subarray(end + 1);
    }
    const split = rest.length - partialPrefixLength(rest, markerPrefix);
    pending = rest.subarray(split);
    return concat(programBytes, rest.subarray(0, split));
  }

  return {
    push,
    flush() {
      const rest = pending;
      pending = Buffer.alloc(0);
      return rest;
    },
  };
}

function concat(chunks: Buffer[], last: Buffer): Buffer {
  return chunks.length === 0 ? last : Buffer.concat([...chunks, last]);
}

/** How many bytes at the end of `data` are a beginning of `mark`. */
function partialPrefixLength(data: Buffer, prefix: Buffer): number {
  for (let length = Math.min(data.length, prefix.length - 1); length > 0; length--) {
    if (data.subarray(data.length - length).equals(prefix.subarray(0, length))) return length;
  }
  return 0;
}
