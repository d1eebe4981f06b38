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

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPENING = new Set([0x7b, 0x5b]);
const CLOSING = new Set([0x7d, 0x5d]);
const WHITE_SPACE = /[\t\n\r ]*/y;

/**
 * Finds the top-level members in the text of a JSON object, including the duplicates that `JSON.parse` hides.
 * @param text text that `JSON.parse` has parsed to an object (RFC 8259).
 */
export function findTopLevelMembers(text: string): JsonObjectMembers {
  const afterBrace = text.indexOf('{') + 1;
  const members: JsonMember[] = [];
  let at = skipWhiteSpace(text, afterBrace);
  while (text.charCodeAt(at) === QUOTE) {
    const nameEnd = stringEndOffset(text, at);
    const name = JSON.parse(text.slice(at, nameEnd)) as string;
    const valueStart = skipWhiteSpace(text, skipWhiteSpace(text, nameEnd) + 1);
    const valueEnd = valueEndOffset(text, valueStart);
    members.push({ name, valueStart, valueEnd });
    at = skipWhiteSpace(text, valueEnd);
    if (text.charCodeAt(at) === COMMA) at = skipWhiteSpace(text, at + 1);
  }
  return { members, afterBrace };
}

function skipWhiteSpace(text: string, at: number): number {
  WHITE_SPACE.lastIndex = at;
  WHITE_SPACE.test(text);
  return WHITE_SPACE.lastIndex;
}

/** The offset after the closing quote. Uses `indexOf`, since strings with images are long. */
function stringEndOffset(text: string, openingQuote: number): number {
  let quote = text.indexOf('"', openingQuote + 1);
  while (isEscaped(text, quote)) quote = text.indexOf('"', quote + 1);
  return quote + 1;
}

function isEscaped(text: string, at: number): boolean {
  let first = at;
  while (text.charCodeAt(first - 1) === BACKSLASH) first -= 1;
  return (at - first) % 2 === 1;
}

function valueEndOffset(text: string, start: number): number {
  let depth = 0;
  let at = start;
  for (;;) {
    const unit = text.charCodeAt(at);
    if (unit === QUOTE) {
      at = stringEndOffset(text, at);
      if (depth === 0) return at;
      continue;
    }
    if (OPENING.has(unit)) depth += 1;
    else if (CLOSING.has(unit)) {
      if (depth === 0) return trimEnd(text, at);
      depth -= 1;
      if (depth === 0) return at + 1;
    } else if (unit === COMMA && depth === 0) return trimEnd(text, at);
    at += 1;
  }
}

function trimEnd(text: string, end: number): number {
  let at = end;
  while (/[\t\n\r ]/.test(text.charAt(at - 1))) at -= 1;
  return at;
}
