import { expect, it } from '@jest/globals';
import { findHiddenCharacter } from '../../src/lib/visible-text.ts';

const range = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, at) => first + at);
const HIDDEN: [string, number[]][] = [
  ['control characters', [...range(0x00, 0x1f), ...range(0x7f, 0x9f)]],
  ['bidirectional marks', [0x200e, 0x200f, 0x061c]],
  ['bidirectional overrides and embeddings', range(0x202a, 0x202e)],
  ['bidirectional isolates', range(0x2066, 0x2069)],
  ['zero-width characters', [0x200b, 0x200c, 0x200d, 0x2060, 0xfeff, 0x180e, 0x00ad, 0x034f]],
  ['invisible operators and format controls', [...range(0x2061, 0x2064), ...range(0x206a, 0x206f)]],
  ['separators of lines and paragraphs', [0x2028, 0x2029]],
  ['fillers', [0x115f, 0x1160, 0x3164, 0xffa0, 0x2800]],
  ['tags', range(0xe0001, 0xe007f)],
  ['annotations', range(0xfff9, 0xfffb)],
];

it.each(HIDDEN)('finds %s and names the code point', (_kind, codePoints) => {
  for (const codePoint of codePoints) {
    const name = `U+${codePoint.toString(16).toUpperCase().padStart(4, '0')}`;
    expect(findHiddenCharacter(`a${String.fromCodePoint(codePoint)}b`)).toBe(name);
  }
});

it('finds lone surrogates, but no pairs', () => {
  expect(['\ud83d', 'a\udc00b', '\udc00\ud83d', '😀\ud83d'].map(findHiddenCharacter)).toEqual([
    'U+D83D',
    'U+DC00',
    'U+DC00',
    'U+D83D',
  ]);
  expect(findHiddenCharacter('😀')).toBeUndefined();
});

it.each([
  'my key (2)',
  'Schlüssel für Ærøskøbing',
  '鍵 キー 키',
  'مفتاح',
  'מפתח',
  'कुंजी',
  '❤️ 🏳 🔑',
  'e\u0301',
  '\ue000',
])('accepts %s', (text) => {
  expect(findHiddenCharacter(text)).toBeUndefined();
});
