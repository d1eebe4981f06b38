/** Separates the script's markers from the program's output on the container's standard error. */
export interface MarkerParser {
  /**
   * Reads a chunk of standard error. @returns the program's bytes, including pending ones that are no marker.
   */
  push(data: Buffer): Buffer;
  /** Returns the pending bytes at the end of the stream: they are the program's. */
  flush(): Buffer;
}

/** The text of a marker is short; anything longer is program output. */
const MAX_MARKER_BYTES = 64;
const NEWLINE = 10;

/**
 * Parses markers of the form prefix + text + newline. The prefix is random, so that no program writes it by
 * accident. Only bytes that may begin a marker are delayed.
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

/** Number of bytes at the end of `data` that are a beginning of `prefix`. */
function partialPrefixLength(data: Buffer, prefix: Buffer): number {
  for (let length = Math.min(data.length, prefix.length - 1); length > 0; length--) {
    if (data.subarray(data.length - length).equals(prefix.subarray(0, length))) return length;
  }
  return 0;
}
