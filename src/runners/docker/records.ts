/** What the job's script says of itself, on the container's standard error, between the program's own words. */
export interface Records {
  /** Takes a piece of standard error. @returns what of it, or of what was held back, is the program's. */
  push(data: Buffer): Buffer;
  /** What was held back and turned out to be the program's. */
  flush(): Buffer;
}

/** A record's text is a few words; anything longer is none. */
const MAX_RECORD_BYTES = 64;
const NEWLINE = 10;

/**
 * Takes records, `mark` + text + newline, out of a stream. The mark is random, so that no program writes it by
 * accident. Held back is only what may be the beginning of a record.
 */
export function createRecords(mark: Buffer, onRecord: (text: string) => void): Records {
  let held: Buffer = Buffer.alloc(0);

  function push(data: Buffer): Buffer {
    let rest = held.length === 0 ? data : Buffer.concat([held, data]);
    held = Buffer.alloc(0);
    const own: Buffer[] = [];
    for (;;) {
      const start = rest.indexOf(mark);
      if (start < 0) break;
      const end = rest.indexOf(NEWLINE, start + mark.length);
      if (end < 0 && rest.length - start <= mark.length + MAX_RECORD_BYTES) {
        held = rest.subarray(start);
        return join(own, rest.subarray(0, start));
      }
      if (end < 0) break;
      own.push(rest.subarray(0, start));
      onRecord(rest.toString('latin1', start + mark.length, end));
      rest = rest.subarray(end + 1);
    }
    const split = rest.length - beginningAtEnd(rest, mark);
    held = rest.subarray(split);
    return join(own, rest.subarray(0, split));
  }

  return {
    push,
    flush() {
      const rest = held;
      held = Buffer.alloc(0);
      return rest;
    },
  };
}

function join(own: Buffer[], last: Buffer): Buffer {
  return own.length === 0 ? last : Buffer.concat([...own, last]);
}

/** How many bytes at the end of `data` are a beginning of `mark`. */
function beginningAtEnd(data: Buffer, mark: Buffer): number {
  for (let length = Math.min(data.length, mark.length - 1); length > 0; length--) {
    if (data.subarray(data.length - length).equals(mark.subarray(0, length))) return length;
  }
  return 0;
}
