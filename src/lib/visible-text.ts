import type { z } from 'zod';

/**
 * Characters that change how the text around them is displayed, or that are not displayed: control characters,
 * bidirectional marks, overrides and isolates, zero-width characters, fillers, separators of lines and paragraphs, and
 * lone surrogates. With them, two different texts look the same, or a text looks like another one.
 * Variation selectors are allowed, because keyboards add them to symbols.
 */
const HIDDEN_CHARACTER =
  /(?![\ufe00-\ufe0f])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/u;

/** @returns the first control or invisible character as a code point, e.g. `U+202E`; undefined when there is none. */
export function findHiddenCharacter(text: string): string | undefined {
  const character = HIDDEN_CHARACTER.exec(text)?.[0];
  if (character === undefined) return undefined;
  return `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}`;
}

/** Text of another system as it may be shown: without invisible characters, and with spaces for control characters. */
export function toVisibleText(text: string): string {
  const toVisible = (character: string) => (/\p{Cc}/u.test(character) ? ' ' : '');
  return Array.from(text, (each) => (HIDDEN_CHARACTER.test(each) ? toVisible(each) : each)).join('');
}

/** A check of Zod's `superRefine` for text that is stored and shown. The message names the character. */
export function refuseHiddenCharacters(text: string, context: z.RefinementCtx): void {
  const found = findHiddenCharacter(text);
  if (found === undefined) return;
  context.addIssue({
    code: 'custom',
    message: `must not contain ${found}: control and invisible characters are not allowed`,
  });
}
