/** The bytes are not DER (X.690), or use a part of it that is not supported here. */
export class DerError extends Error {
  override readonly name = 'DerError';
}

export interface DerValue {
  /** Class, form and number in one byte; longer tags are not supported. */
  tag: number;
  content: Buffer;
}

export const DER = { integer: 0x02, octets: 0x04, oid: 0x06, sequence: 0x30, context0: 0xa0 } as const;

/** Reads the first value and ignores what follows it, such as padding. @throws DerError */
export function readDer(bytes: Buffer): DerValue {
  return readValue(bytes, 0).value;
}

/** The values inside a value with this tag. @throws DerError for another tag. */
export function derChildren(value: DerValue | undefined, tag: number = DER.sequence): DerValue[] {
  return readValues(derContent(value, tag));
}

/** @throws DerError when the value is missing or has another tag. */
export function derContent(value: DerValue | undefined, tag: number): Buffer {
  if (value?.tag !== tag) throw new DerError('unexpected tag');
  return value.content;
}

/** The bytes of an INTEGER without leading zeros; the sign is ignored. @throws DerError */
export function derMagnitude(value: DerValue | undefined): Buffer {
  return withoutLeadingZeros(derContent(value, DER.integer));
}

/** Reads a non-negative INTEGER below 2^32. @throws DerError */
export function derSmallInteger(value: DerValue | undefined): number {
  const bytes = derMagnitude(value);
  if (bytes.length > 4) throw new DerError('the number is too large');
  return bytes.length === 0 ? 0 : bytes.readUIntBE(0, bytes.length);
}

/** The number of bits of a big-endian number. */
export function bitLength(bytes: Buffer): number {
  const [first, ...rest] = withoutLeadingZeros(bytes);
  return first === undefined ? 0 : rest.length * 8 + 32 - Math.clz32(first);
}

function withoutLeadingZeros(bytes: Buffer): Buffer {
  const start = bytes.findIndex((byte) => byte !== 0);
  return bytes.subarray(start === -1 ? bytes.length : start);
}

function readValues(bytes: Buffer): DerValue[] {
  const values: DerValue[] = [];
  for (let at = 0; at < bytes.length;) {
    const { value, end } = readValue(bytes, at);
    values.push(value);
    at = end;
  }
  return values;
}

function readValue(bytes: Buffer, at: number): { value: DerValue; end: number } {
  const tag = bytes[at] ?? 0;
  const first = bytes[at + 1];
  // Long-form lengths of one or two bytes are enough for any key.
  const lengthBytes = first === 0x81 ? 1 : first === 0x82 ? 2 : 0;
  const start = at + 2 + lengthBytes;
  if (first === undefined || (first > 0x7f && lengthBytes === 0) || start > bytes.length)
    throw new DerError('the length cannot be read');
  const length = lengthBytes === 0 ? first : bytes.readUIntBE(at + 2, lengthBytes);
  if (start + length > bytes.length) throw new DerError('the value is cut off');
  return { value: { tag, content: bytes.subarray(start, start + length) }, end: start + length };
}
