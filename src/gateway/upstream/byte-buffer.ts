/** A growing buffer for bytes that do not form a complete frame yet. */
export interface ByteBuffer {
  readonly length: number;
  /** At most the last `count` bytes. The slice is valid until the next call. */
  tail(count: number): Buffer;
  append(chunk: Buffer): void;
  /** Returns all bytes followed by `end` as a separate buffer, and empties this one. */
  takeAll(end: Buffer): Buffer;
}

const INITIAL_CAPACITY = 1024;

/**
 * Chunks are copied into one buffer that grows by doubling. Keeping the chunks themselves would retain the network
 * buffer behind each of them, and a million one-byte chunks would be concatenated again and again.
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
      // The capacity that one long event needed is not kept for the rest of the stream.
      buffer = Buffer.alloc(0);
      length = 0;
      return whole;
    },
  };
}
