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
  const own = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce((sum: number, each) => sum + countMembers(each), own);
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
