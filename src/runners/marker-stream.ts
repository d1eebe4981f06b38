/** Separates markers, which a runner's script writes, from the output of the program on the same stream. */
export interface MarkerReader<Marker> {
  /** @returns output and markers in their order. Bytes that may begin a marker are held until the next call. */
  read(chunk: Buffer): (Buffer | Marker)[];
  /** Call at the end of the stream. @returns the held bytes: they are output. */
  flush(): Buffer;
}

/** The text of a marker is short; anything longer is output. */
const MAX_TEXT_BYTES = 64;
const NEWLINE = 10;
const EMPTY = Buffer.alloc(0);

/**
 * Reads markers of the form prefix + text + newline.
 * @param prefix random for each run, so that no program writes it by accident.
 * @param parse returns undefined for a text that is no marker: then it is output.
 */
export function createMarkerReader<Marker extends string | object>(
  prefix: Buffer,
  parse: (text: string) => Marker | undefined,
): MarkerReader<Marker> {
  let held: Buffer = EMPTY;

  /** Reads the marker at `start`, up to the newline at `end`; undefined for output that only resembles one. */
  function readMarker(bytes: Buffer, start: number, end: number): Marker | undefined {
    const textStart = start + prefix.length;
    return end - textStart > MAX_TEXT_BYTES ? undefined : parse(bytes.toString('latin1', textStart, end));
  }

  return {
    read(chunk) {
      const bytes = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
      const items: (Buffer | Marker)[] = [];
      let outputStart = 0;
      const addOutput = (end: number) => {
        if (end > outputStart) items.push(bytes.subarray(outputStart, end));
      };
      let start = bytes.indexOf(prefix);
      while (start !== -1) {
        const end = bytes.indexOf(NEWLINE, start + prefix.length);
        if (end === -1) break;
        const marker = readMarker(bytes, start, end);
        if (marker !== undefined) {
          addOutput(start);
          items.push(marker);
          outputStart = end + 1;
        }
        start = bytes.indexOf(prefix, marker === undefined ? start + 1 : outputStart);
      }
      // Without a newline after it, a prefix may begin a marker. Only the last one can be short enough.
      const last = start === -1 ? -1 : bytes.lastIndexOf(prefix);
      const isHeld = last !== -1 && bytes.length - last <= prefix.length + MAX_TEXT_BYTES;
      const heldStart = isHeld
        ? last
        : bytes.length - partialPrefixLength(bytes.subarray(outputStart), prefix);
      addOutput(heldStart);
      held = bytes.subarray(heldStart);
      return items;
    },
    flush() {
      const rest = held;
      held = EMPTY;
      return rest;
    },
  };
}

/** Number of bytes at the end of `data` that are a beginning of `prefix`. */
function partialPrefixLength(data: Buffer, prefix: Buffer): number {
  for (let length = Math.min(data.length, prefix.length - 1); length > 0; length -= 1) {
    if (data.subarray(-length).equals(prefix.subarray(0, length))) return length;
  }
  return 0;
}
