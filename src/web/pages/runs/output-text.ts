import Anser from 'anser';

/** A piece of a line with one style. Colours are classes where the palette has them (runs.module.css). */
export interface OutputSpan {
  text: string;
  /** Names of anser, e.g. `ansi-red`; of a colour outside of the palette `undefined`. */
  foreground: string | undefined;
  background: string | undefined;
  isBold: boolean;
  /** A character that is not visible or changes the direction of text, shown by its code. */
  isHidden: boolean;
}

/* eslint-disable no-control-regex -- Programs print control characters; this file removes them. */
/** Operating system commands, such as OSC 52, which writes to the clipboard; device control and the like. */
const STRING_SEQUENCE = /\u001b[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?/g;
/** Control sequences but those that end in `m`, which set colours. */
const CONTROL_SEQUENCE = /\u001b\[[0-?]*[ -/]*[@-ln-~]/g;
const SHORT_SEQUENCE = /\u001b(?:[ -/]+[0-~]|[0-Z\\^-~])/g;
/** Control characters, and those that hide or reorder text (Unicode, bidirectional controls). */
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001a\u001c-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
/* eslint-enable no-control-regex */

const PNG = /^data:image\/png;base64,[A-Za-z0-9+/]+={0,2}\s*$/;

export function isPngLine(line: string): boolean {
  return PNG.test(line);
}

/** Turns lines of a terminal's output into spans. Colours go on in the next line, so each stream has its own parser. */
export function createLineParser(): (line: string) => OutputSpan[] {
  const anser = new Anser();
  return (line) =>
    anser
      // Anser gives the text before the first sequence no style, so each line begins with one: the default font.
      .ansiToJson(`\u001b[10m${cleanLine(line)}`, { use_classes: true, remove_empty: true })
      .flatMap(({ content, fg, bg, decorations }) =>
        showHidden(content).map(({ text, isHidden }) => ({
          text,
          isHidden,
          foreground: fg || undefined,
          background: bg || undefined,
          isBold: decorations.includes('bold'),
        })),
      );
}

/** The line without colours, for copying and searching. */
export function toPlainText(line: string): string {
  // eslint-disable-next-line no-control-regex -- The sequences that set colours.
  return cleanLine(line).replaceAll(/\u001b\[[0-?]*m/g, '');
}

/** A carriage return moves to the start of the line, where programs draw their progress again. */
function cleanLine(line: string): string {
  const shown = line.replace(/\r+$/, '');
  return shown
    .slice(shown.lastIndexOf('\r') + 1)
    .replaceAll(STRING_SEQUENCE, '')
    .replaceAll(CONTROL_SEQUENCE, '')
    .replaceAll(SHORT_SEQUENCE, '');
}

function showHidden(text: string): { text: string; isHidden: boolean }[] {
  const parts: { text: string; isHidden: boolean }[] = [];
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > end) parts.push({ text: text.slice(end, match.index), isHidden: false });
    const code = match[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, '0');
    parts.push({ text: `U+${code}`, isHidden: true });
    end = match.index + 1;
  }
  if (end < text.length) parts.push({ text: text.slice(end), isHidden: false });
  return parts;
}
