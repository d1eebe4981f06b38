/** Bytes that wait for more to come. */
export interface ByteBuffer {
  readonly length: number;
  /** The last bytes, at most `count`; valid until the next call. */
  tail(count: number): Buffer;
  append(chunk: Buffer): void;
  /** All of it with `end` behind, as a buffer of its own; nothing is held any more. */
  takeAll(end: Buffer): Buffer;
}

const INITIAL_CAPACITY = 1024;

/**
 * Builds an empty hold. Pieces are copied into one buffer that grows by doubling: kept as they came, a million
 * pieces of a byte would each hold on to the network buffer that it is a part of, and be joined again and again.
 */
export function createByteBuffer(): ByteBuffer {
  let buffer: Buffer = Buffer.alloc(0);
  let length = 0;

  function grow(needed: number): void {
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * buffer.length, INITIAL_CAPACITY));
    buffer.copy(larger, 0, 0, length);
    buffer = larger;
  }

  return {
    get length() {
      return length;
    },
    tail: (count) => buffer.subarray(Math.max(0, length - count), length),
    append(chunk) {
      if (length + chunk.length > buffer.length) grow(length + chunk.length);
      chunk.copy(buffer, length);
      length += chunk.length;
    },
    takeAll(end) {
      const whole = length === 0 ? end : Buffer.concat([buffer.subarray(0, length), end]);
      // What one long event needed is not kept for a stream's lifetime.
      buffer = Buffer.alloc(0);
      length = 0;
      return whole;
    },
  };
}
