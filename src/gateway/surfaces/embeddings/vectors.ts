const NAME = Buffer.from('"embedding"');
const COLON = 0x3a;
const QUOTE = 0x22;
const OPENING_BRACKET = 0x5b;
const SPACE = 0x20;

/** Far above the longest vectors of models: 12,288 numbers, each on a line of its own. */
const MAX_VECTOR_BYTES = 1024 * 1024;
/** To check as many bytes takes about 2 milliseconds. */
const BYTES_PER_STEP = 256 * 1024;
/** The same for short values. */
const NAMES_PER_STEP = 2_000;

/** Base64, in the alphabet of addresses as well. */
const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}$/;

/** True for a vector in one of the encodings of the protocol: an array of numbers, or base64. */
export function isVector(value: unknown): boolean {
  if (typeof value === 'string') return BASE64.test(value);
  return Array.isArray(value) && value.every((element) => typeof element === 'number');
}

/**
 * The text of a response with an empty vector (`[]`, `""`) in place of each vector, so that it can be parsed at once: a
 * response of 20 MB has more than a million numbers. Each vector is parsed on its own and then released. What is no vector
 * stays. So the text is valid JSON, and its value a response of the protocol, exactly when that of the whole is.
 *
 * Searching for the name in quotes finds members only: inside a string a quote is escaped, and where a text is no valid
 * JSON, the result is none either. Each byte is searched and parsed once at most.
 * @yields after each step of about 256 KB, or 2,000 values. The caller lets other requests proceed.
 */
export function* withoutVectors(bytes: Buffer): Generator<void, Buffer> {
  const kept: Buffer[] = [];
  let keptTo = 0;
  let stepFrom = 0;
  let names = 0;
  for (let at = bytes.indexOf(NAME); at >= 0; at = bytes.indexOf(NAME, at)) {
    const { start, end, isFound } = findVector(bytes, at + NAME.length);
    at = end;
    if (isFound) {
      kept.push(bytes.subarray(keptTo, start + 1));
      // The closing bracket or quote is kept.
      keptTo = end - 1;
    }
    names += 1;
    if (end - stepFrom < BYTES_PER_STEP && names < NAMES_PER_STEP) continue;
    stepFrom = end;
    names = 0;
    yield;
  }
  return Buffer.concat([...kept, bytes.subarray(keptTo)]);
}

interface SearchedVector {
  start: number;
  /** The search continues here. */
  end: number;
  /** True when the bytes from `start` to `end` are a vector. */
  isFound: boolean;
}

/** The vector that is the value of a member. @param nameEnd the offset after its name. */
function findVector(bytes: Buffer, nameEnd: number): SearchedVector {
  const colon = skipSpace(bytes, nameEnd);
  const start = bytes[colon] === COLON ? skipSpace(bytes, colon + 1) : colon;
  const first = bytes[start];
  if (bytes[colon] !== COLON || (first !== OPENING_BRACKET && first !== QUOTE))
    return { start, end: nameEnd, isFound: false };
  const searched = bytes.subarray(start + 1, start + MAX_VECTOR_BYTES);
  const length = searched.indexOf(first === QUOTE ? '"' : ']');
  if (length < 0) return { start, end: start + MAX_VECTOR_BYTES, isFound: false };
  const end = start + length + 2;
  return { start, end, isFound: isVector(parse(bytes.toString('latin1', start, end))) };
}

function skipSpace(bytes: Buffer, start: number): number {
  let at = start;
  while (at < bytes.length && (bytes[at] ?? 0) <= SPACE) at += 1;
  return at;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
