/** How much structure a JSON text has; strings and numbers are not counted, however long they are. */
export interface JsonSize {
  /** Objects and arrays within one another. */
  depth: number;
  /** Values, roughly: brackets and commas. */
  parts: number;
  /** Members of objects, counting one that stands twice as two, which a parser hides. */
  members: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPENING = new Set([0x7b, 0x5b]);
const CLOSING = new Set([0x7d, 0x5d]);

/**
 * What may be parsed: 16 million brackets are 32 MB of text, but 3 seconds of parsing and a gigabyte of arrays.
 * No chat request and no provider's answer comes near these numbers.
 */
const MAX_DEPTH = 100;
const MAX_PARTS = 1_000_000;

/** Measures a text in one pass, without parsing it; for a text that is no JSON the numbers mean nothing. */
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

/** True when parsing the text would cost more than it may. */
export function exceedsJsonLimits({ depth, parts }: JsonSize): boolean {
  return depth > MAX_DEPTH || parts > MAX_PARTS;
}

/** Members of a parsed value and of all values in it. */
export function countMembers(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  const own = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce((sum: number, each) => sum + countMembers(each), own);
}

/** Crosses a string by search, not step by step: images are long. The end of the text when it is not closed. */
function findClosingQuote(text: string, opening: number): number {
  for (let quote = text.indexOf('"', opening + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let first = quote;
    while (text.charCodeAt(first - 1) === BACKSLASH) first -= 1;
    if ((quote - first) % 2 === 0) return quote;
  }
  return text.length;
}

/** The value of a JSON text; undefined when it is none (which no JSON text means), or too much to parse. */
export function parseJson(text: string): unknown {
  if (exceedsJsonLimits(measureJson(text))) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
