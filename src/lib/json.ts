/** The amount of structure in a JSON text, not counting the length of strings and numbers. */
export interface JsonSize {
  /** Nesting of objects and arrays. */
  depth: number;
  /** Approximate number of values: brackets and commas. */
  parts: number;
  /** Members of objects. Duplicate members are counted separately; a parser hides them. */
  members: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPENING = new Set([0x7b, 0x5b]);
const CLOSING = new Set([0x7d, 0x5d]);

/**
 * Limits for parsing. 16 million brackets are 32 MB of text, but take 3 seconds to parse and a gigabyte of memory.
 * Chat requests and providers' responses stay far below these limits.
 */
const MAX_DEPTH = 100;
const MAX_PARTS = 1_000_000;

/** Measures a text in one pass, without parsing it. The result is meaningless for a text that is not JSON. */
export function measureJson(text: string): JsonSize {
  let level = 0;
  const size: JsonSize = { depth: 0, parts: 0, members: 0 };
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit === QUOTE) at = findClosingQuote(text, at);
    else if (unit === COMMA) size.parts += 1;
    else if (unit === COLON) size.members += 1;
    else if (OPENING.has(unit)) {
      level += 1;
      size.parts += 1;
      size.depth = Math.max(size.depth, level);
    } else if (CLOSING.has(unit)) level -= 1;
  }
  return size;
}

/** True when the text has too much structure to be parsed. */
export function exceedsJsonLimits({ depth, parts }: JsonSize): boolean {
  return depth > MAX_DEPTH || parts > MAX_PARTS;
}

/** Counts the members of a parsed value and of all values in it. */
export function countMembers(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  const ownCount = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce((sum: number, each) => sum + countMembers(each), ownCount);
}

/** Uses `indexOf`, because strings such as images are long. @returns the end of the text for an unclosed string. */
function findClosingQuote(text: string, opening: number): number {
  for (let quote = text.indexOf('"', opening + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let first = quote;
    while (text.charCodeAt(first - 1) === BACKSLASH) first -= 1;
    if ((quote - first) % 2 === 0) return quote;
  }
  return text.length;
}

/** Parses a JSON text; undefined when it is invalid or exceeds the limits. No JSON text has the value undefined. */
export function parseJson(text: string): unknown {
  if (exceedsJsonLimits(measureJson(text))) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** A top-level member of a JSON object. Offsets count UTF-16 units of the text. */
export interface JsonMember {
  /** Decoded: `"mod\u0065l"` is `model`. */
  name: string;
  valueStart: number;
  valueEnd: number;
}

export interface JsonObjectMembers {
  members: JsonMember[];
  /** Offset after the opening brace, where a member can be inserted. */
  afterBrace: number;
}

const WHITE_SPACE = /[\t\n\r ]*/y;
/** A number, `true`, `false` or `null`. */
const PRIMITIVE = /[^\t\n\r ,\]}]*/y;

/**
 * Finds the top-level members in the text of a JSON object, including the duplicates that `JSON.parse` hides.
 * @param text text that `JSON.parse` has parsed to an object (RFC 8259).
 */
export function findTopLevelMembers(text: string): JsonObjectMembers {
  const afterBrace = text.indexOf('{') + 1;
  const members: JsonMember[] = [];
  let at = skip(WHITE_SPACE, text, afterBrace);
  while (text.charCodeAt(at) === QUOTE) {
    const nameEnd = findClosingQuote(text, at) + 1;
    const name = JSON.parse(text.slice(at, nameEnd)) as string;
    const valueStart = skip(WHITE_SPACE, text, skip(WHITE_SPACE, text, nameEnd) + 1);
    const valueEnd = findValueEnd(text, valueStart);
    members.push({ name, valueStart, valueEnd });
    at = skip(WHITE_SPACE, text, valueEnd);
    if (text.charCodeAt(at) === COMMA) at = skip(WHITE_SPACE, text, at + 1);
  }
  return { members, afterBrace };
}

/** The offset after the match of a sticky pattern that also matches nothing. */
function skip(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at;
  pattern.test(text);
  return pattern.lastIndex;
}

/** The offset after the value that begins at `start`. */
function findValueEnd(text: string, start: number): number {
  let level = 0;
  for (let at = start; ; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit === QUOTE) at = findClosingQuote(text, at);
    else if (OPENING.has(unit)) level += 1;
    else if (CLOSING.has(unit)) level -= 1;
    else if (level === 0) return skip(PRIMITIVE, text, at);
    if (level === 0) return at + 1;
  }
}
