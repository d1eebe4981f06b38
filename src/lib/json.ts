/** How much structure a JSON text may have. Each value inside it is a member of an object or an element of an array. */
export interface JsonLimits {
  /** Members of one object. Duplicate members are counted separately; a parser hides them. */
  objectMembers: number;
  /** Members of all objects. */
  members: number;
  /** Elements of all arrays. */
  elements: number;
}

/**
 * The limits for chat requests and for responses of upstreams, which stay far below them. Without them, 32 MB of
 * members or brackets take seconds to parse and a gigabyte of memory.
 */
export const MAX_JSON_SIZE: JsonLimits = { objectMembers: 10_000, members: 100_000, elements: 1_000_000 };

/** Nesting of objects and arrays. */
const MAX_DEPTH = 100;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPENING_BRACE = 0x7b;
const CLOSING_BRACE = 0x7d;
const OPENING_BRACKET = 0x5b;
const CLOSING_BRACKET = 0x5d;
const SPACE = 0x20;

/** Measures a JSON text whose bytes arrive in pieces. */
export interface JsonMeter {
  /** Measures the next bytes. @returns false as soon as a limit is exceeded; the text needs no further bytes then. */
  add(bytes: Buffer): boolean;
  /** The number of members of all objects so far. */
  members(): number;
}

/**
 * Measures a JSON text in one pass over its UTF-8 bytes, before it is parsed. Every prefix that a parser accepts is
 * measured correctly, so a text that is not JSON costs the parser no more than the limits either.
 */
export function createJsonMeter(limits: JsonLimits = MAX_JSON_SIZE): JsonMeter {
  /** By level; -1 for an array. */
  const memberCounts = new Int32Array(MAX_DEPTH + 1);
  let level = 0;
  let members = 0;
  let elements = 0;
  let isArrayBegun = false;
  let string: 'outside' | 'inside' | 'escape' = 'outside';

  /** @returns the offset of the last byte of the string, or of these bytes when it continues after them. */
  function passString(bytes: Buffer, start: number): number {
    const from = string === 'escape' ? start + 1 : start;
    const end = findClosingQuote(bytes, from);
    if (end < bytes.length) string = 'outside';
    else string = endsWithEscape(bytes, from) ? 'escape' : 'inside';
    return end;
  }

  /** Counts a byte outside strings. @returns false when a limit is exceeded. */
  function count(byte: number): boolean {
    if (isArrayBegun && byte > SPACE) {
      isArrayBegun = false;
      if (byte !== CLOSING_BRACKET) elements += 1;
    }
    switch (byte) {
      case COLON: {
        const ofObject = (memberCounts[level] ?? 0) + 1;
        memberCounts[level] = ofObject;
        members += 1;
        return ofObject <= limits.objectMembers && members <= limits.members;
      }
      case COMMA:
        if (memberCounts[level] === -1) elements += 1;
        break;
      case OPENING_BRACE:
      case OPENING_BRACKET:
        isArrayBegun = byte === OPENING_BRACKET;
        level += 1;
        if (level > MAX_DEPTH) return false;
        memberCounts[level] = isArrayBegun ? -1 : 0;
        break;
      case CLOSING_BRACE:
      case CLOSING_BRACKET:
        level = Math.max(level - 1, 0);
    }
    return elements <= limits.elements;
  }

  return {
    add(bytes) {
      for (let at = 0; at < bytes.length; at += 1) {
        if (string !== 'outside') at = passString(bytes, at);
        else {
          const byte = bytes[at] ?? 0;
          if (!count(byte)) return false;
          if (byte === QUOTE) string = 'inside';
        }
      }
      return true;
    },
    members: () => members,
  };
}

/** @returns the number of members of all objects in a whole text; undefined when a limit is exceeded. */
export function measureJson(bytes: Buffer, limits: JsonLimits = MAX_JSON_SIZE): number | undefined {
  const meter = createJsonMeter(limits);
  return meter.add(bytes) ? meter.members() : undefined;
}

/** True when the byte after a part of a string, which begins at `start` and is unescaped there, is escaped. */
function endsWithEscape(bytes: Buffer, start: number): boolean {
  let first = bytes.length;
  while (first > start && bytes[first - 1] === BACKSLASH) first -= 1;
  return (bytes.length - first) % 2 === 1;
}

/** Short strings and escapes are read byte by byte; the native search is called once per this many bytes at most. */
const BYTES_BEFORE_SEARCH = 64;

/**
 * The native search makes images cheap, which are long strings.
 * @param start inside the string, at a byte that is not escaped.
 * @returns the end of the text for an unclosed string.
 */
function findClosingQuote(bytes: Buffer, start: number): number {
  let at = start;
  for (;;) {
    for (const searchFrom = at + BYTES_BEFORE_SEARCH; at < searchFrom; at += 1) {
      if (at >= bytes.length || bytes[at] === QUOTE) return Math.min(at, bytes.length);
      if (bytes[at] === BACKSLASH) at += 1;
    }
    const quote = bytes.indexOf(QUOTE, at);
    if (quote < 0) return bytes.length;
    let first = quote;
    while (first > at && bytes[first - 1] === BACKSLASH) first -= 1;
    if ((quote - first) % 2 === 0) return quote;
    at = quote + 1;
  }
}

/**
 * Parses a JSON text; undefined when it is invalid or exceeds the limits. No JSON text has the value undefined.
 * @param json text, or its bytes in UTF-8.
 */
export function parseJson(json: string | Buffer, limits: JsonLimits = MAX_JSON_SIZE): unknown {
  const bytes = typeof json === 'string' ? Buffer.from(json) : json;
  if (measureJson(bytes, limits) === undefined) return undefined;
  try {
    return JSON.parse(json.toString()) as unknown;
  } catch {
    return undefined;
  }
}

/** A top-level member of a JSON object. Offsets count bytes of the text. */
export interface JsonMember {
  /** Decoded: `"mod\u0065l"` is `model`. */
  name: string;
  /** Where its name begins, with the quote. */
  start: number;
  valueStart: number;
  valueEnd: number;
}

export interface JsonObjectMembers {
  members: JsonMember[];
  /** Offset after the opening brace, where a member can be inserted. */
  afterBrace: number;
}

/**
 * Finds the top-level members in the text of a JSON object, including the duplicates that `JSON.parse` hides.
 * @param bytes UTF-8 text that `JSON.parse` has parsed to an object (RFC 8259).
 */
export function findTopLevelMembers(bytes: Buffer): JsonObjectMembers {
  const afterBrace = bytes.indexOf(OPENING_BRACE) + 1;
  const members: JsonMember[] = [];
  let at = skipSpace(bytes, afterBrace);
  while (bytes[at] === QUOTE) {
    const start = at;
    const nameEnd = findClosingQuote(bytes, at + 1) + 1;
    const name = JSON.parse(bytes.toString('utf8', at, nameEnd)) as string;
    const valueStart = skipSpace(bytes, skipSpace(bytes, nameEnd) + 1);
    const valueEnd = findValueEnd(bytes, valueStart);
    members.push({ name, start, valueStart, valueEnd });
    at = skipSpace(bytes, valueEnd);
    if (bytes[at] === COMMA) at = skipSpace(bytes, at + 1);
  }
  return { members, afterBrace };
}

/**
 * The text of a JSON object without the top-level members of these names. The bytes of the others are unchanged.
 * @param bytes as for {@link findTopLevelMembers}.
 */
export function removeTopLevelMembers(bytes: Buffer, names: readonly string[]): Buffer {
  const kept = findTopLevelMembers(bytes).members.filter(({ name }) => !names.includes(name));
  const parts = kept.flatMap(({ start, valueEnd }, index) => [
    Buffer.from(index === 0 ? '' : ','),
    bytes.subarray(start, valueEnd),
  ]);
  return Buffer.concat([Buffer.from('{'), ...parts, Buffer.from('}')]);
}

/** The offset after white space. In JSON, bytes up to the space stand outside strings as white space only. */
function skipSpace(bytes: Buffer, start: number): number {
  let at = start;
  while (at < bytes.length && (bytes[at] ?? 0) <= SPACE) at += 1;
  return at;
}

/** The offset after the value that begins at `start`. */
function findValueEnd(bytes: Buffer, start: number): number {
  let level = 0;
  for (let at = start; at < bytes.length; at += 1) {
    const byte = bytes[at] ?? 0;
    if (byte === QUOTE) at = findClosingQuote(bytes, at + 1);
    else if (byte === OPENING_BRACE || byte === OPENING_BRACKET) level += 1;
    else if (byte === CLOSING_BRACE || byte === CLOSING_BRACKET) level -= 1;
    else if (level === 0) return findPrimitiveEnd(bytes, at);
    if (level === 0) return at + 1;
  }
  return bytes.length;
}

/** The offset after a number, `true`, `false` or `null`. */
function findPrimitiveEnd(bytes: Buffer, start: number): number {
  let at = start;
  for (; at < bytes.length; at += 1) {
    const byte = bytes[at] ?? 0;
    if (byte <= SPACE || byte === COMMA || byte === CLOSING_BRACE || byte === CLOSING_BRACKET) break;
  }
  return at;
}
