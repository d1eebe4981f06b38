import { expect, it } from '@jest/globals';
import { toCsv } from '../../src/http/csv.ts';

it('writes one line for each row, the names of the columns first', () => {
  const rows = [
    { a: 1, b: 'x,"y"\nz', c: null },
    { a: 0.5, b: '', c: 'ü' },
  ];
  expect(toCsv(['a', 'b', 'c'], rows)).toBe('"a","b","c"\r\n1,"x,""y""\nz",\r\n0.5,"","ü"\r\n');
});

it.each([
  '=1+1',
  '+1',
  '-1',
  '@SUM(A1)',
  '\t=1',
  '\r=1',
  '\n=1',
  ' =1',
  '|calc',
  '%x',
  '＝1',
  '－1',
  '\u00a0=1',
])('defuses the cell %j', (value) => {
  expect(toCsv(['a'], [{ a: value }])).toBe(`"a"\r\n"'${value}"\r\n`);
});

it.each(['a=1', 'gpt-4o', '0.5', 'user@example.org'])('leaves the cell %j', (value) => {
  expect(toCsv(['a'], [{ a: value }])).toBe(`"a"\r\n"${value}"\r\n`);
});
