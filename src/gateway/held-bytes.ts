/** Bytes that wait for more to come. */
export interface HeldBytes {
  readonly length: number;
  /** The last bytes, at most `count`; valid until the next call. */
  tail(count: number): Buffer;
  add(piece: Buffer): void;
  /** All of it with `end` behind, as a buffer of its own; nothing is held any more. */
  takeWith(end: Buffer): Buffer;
}

const FIRST_CAPACITY = 1024;

/**
 * Builds an empty hold. Pieces are copied into one buffer that grows by doubling: kept as they came, a million
 * pieces of a byte would each hold on to the network buffer that it is a part of, and be joined again and again.
 */
export function createHeldBytes(): HeldBytes {
  let buffer: Buffer = Buffer.alloc(0);
  let length = 0;

  function grow(needed: number): void {
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * buffer.length, FIRST_CAPACITY));
    buffer.copy(larger, 0, 0, length);
    buffer = larger;
  }

  return {
    get length() {
      return length;
    },
    tail: (count) => buffer.subarray(Math.max(0, length - count), length),
    add(piece) {
      if (length + piece.length > buffer.length) grow(length + piece.length);
      piece.copy(buffer, length);
      length += piece.length;
    },
    takeWith(end) {
      const whole = length === 0 ? end : Buffer.concat([buffer.subarray(0, length), end]);
      // What one long event needed is not kept for a stream's lifetime.
      buffer = Buffer.alloc(0);
      length = 0;
      return whole;
    },
  };
}
