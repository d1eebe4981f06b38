/** csh refuses longer words. */
const MAX_WORD_LENGTH = 900;

/**
 * Encodes a script so that the account's shell, whatever it is, starts it with `sh`. csh refuses line breaks in quotes and
 * replaces `!`, and fish reads `\'` and two backslashes in quotes as one character: these become escapes of `printf %b`.
 * The words contain no quote, and `printf` joins them.
 * @param script a constant text for any POSIX shell, without text that looks like a comment; no line may depend on its
 * leading blanks.
 * @returns creates the command. Its parameter becomes `$0` of the script; it is a word without special characters.
 */
export function toShellCommand(script: string): (name: string) => string {
  const compact = script
    .replaceAll(/^ *(#.*\n|\n)?/gm, '')
    .replaceAll(/ #( [\w,]+)+$/gm, '')
    .trimEnd();
  const characters = Array.from(compact, (character) => ESCAPES.get(character) ?? character);
  const words: string[] = [''];
  for (const each of characters) {
    if ((words.at(-1) ?? '').length + each.length > MAX_WORD_LENGTH) words.push('');
    words.push((words.pop() ?? '') + each);
  }
  const quoted = words.map((word) => `'${word}'`).join(' ');
  return (name) => `exec sh -c 'eval "$(printf %b "$@")"' ${name} ${quoted}`;
}

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['\n', '\\n'],
  ...["'", '\\', '!'].map((character): [string, string] => [
    character,
    `\\0${character.charCodeAt(0).toString(8).padStart(3, '0')}`,
  ]),
]);
