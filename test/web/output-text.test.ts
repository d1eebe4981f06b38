import { expect, it } from '@jest/globals';
import { createLineParser, isPngLine, toPlainText } from '../../src/web/pages/runs/output-text.ts';

const ESC = '\u001b';

it('keeps a colour until it is reset, also in the next line', () => {
  const parse = createLineParser();
  expect(parse(`a${ESC}[31;1mred`).map(({ text, foreground, isBold }) => [text, foreground, isBold])).toEqual(
    [
      ['a', undefined, false],
      ['red', 'ansi-red', true],
    ],
  );
  expect(parse(`still${ESC}[0m not`).map(({ text, foreground }) => [text, foreground])).toEqual([
    ['still', 'ansi-red'],
    [' not', undefined],
  ]);
});

it.each([
  ['writing to the clipboard (OSC 52)', `a${ESC}]52;c;aGVsbG8=\u0007b`],
  ['writing to the clipboard, ended by ST', `a${ESC}]52;c;aGVsbG8=${ESC}\\b`],
  ['a title without an end', `ab${ESC}]0;title`],
  ['moving the cursor', `a${ESC}[2Ab`],
  ['clearing the screen', `a${ESC}[2J${ESC}[Hb`],
  ['a device control string', `a${ESC}Pq#0${ESC}\\b`],
  ['choosing a character set', `a${ESC}(0b`],
  ['a reset', `a${ESC}cb`],
])('drops %s', (_what, line) => {
  const parse = createLineParser();
  expect(
    parse(line)
      .map(({ text }) => text)
      .join(''),
  ).toBe('ab');
  expect(toPlainText(line)).toBe('ab');
});

it('shows characters that hide or reorder text by their code', () => {
  const shown = createLineParser()('a\u202eb\u200bc\u0008d');
  expect(shown.map(({ text, isHidden }) => [text, isHidden])).toEqual([
    ['a', false],
    ['U+202E', true],
    ['b', false],
    ['U+200B', true],
    ['c', false],
    ['U+0008', true],
    ['d', false],
  ]);
});

it('shows a line that was drawn again as it is at the end', () => {
  expect(toPlainText('10%\r50%\r100%\r')).toBe('100%');
});

it('finds images, and no other data URLs', () => {
  expect(isPngLine('data:image/png;base64,iVBORw0KGgo=')).toBe(true);
  for (const other of [
    'data:image/svg+xml;base64,AAAA',
    'data:text/html,x',
    'x data:image/png;base64,AAAA',
    'data:image/png;base64,"',
  ])
    expect(isPngLine(other)).toBe(false);
});
