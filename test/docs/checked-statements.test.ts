import { describe, expect, it } from '@jest/globals';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

/*
 * Statements of the documentation name the tests that check them, or why none does, in a mark:
 *   _Checked by `test/a.test.ts`, `test/b.test.ts`._          _Checked by `test/a.test.ts`. Not tested: <what>._
 *   _Not tested: <reason or how it was checked instead>._
 */
const MARK = /_(?:Checked by .*`test\/[^`]+`.*|Not tested[:,] .+)\._$/;
const PROJECT = path.resolve(import.meta.dirname, '..', '..');
const read = (name: string) => readFileSync(path.join(PROJECT, name), 'utf8');

interface Section {
  heading: string;
  /** Paragraphs, lists, tables and blocks of code. */
  parts: string[];
}

/** @returns the sections below the first heading, without empty ones. */
function listSections(markdown: string): Section[] {
  const sections: Section[] = [];
  for (const part of markdown.trim().split(/\n{2,}/)) {
    if (/^#+ /.test(part)) sections.push({ heading: part, parts: [] });
    else sections.at(-1)?.parts.push(part);
  }
  return sections.filter(({ heading, parts }) => !heading.startsWith('# ') && parts.length > 0);
}

const isMark = (part: string) => part.startsWith('_') && MARK.test(part);
/** In the README, marks of sections are comments, since its readers begin to use the product. */
const showComments = (markdown: string) =>
  markdown.replace(/^<!-- ((?:Checked by|Not tested).+) -->$/gm, '_$1_');

/** Headings of sections with a statement after the last mark, or with more statements before one mark than allowed. */
function findUnchecked(sections: readonly Section[], maxPerMark: number): string[] {
  return sections.flatMap(({ heading, parts }) => {
    let unchecked = 0;
    let most = 0;
    for (const part of parts) {
      unchecked = isMark(part) ? 0 : unchecked + 1;
      most = Math.max(most, unchecked);
    }
    return unchecked > 0 || most > maxPerMark ? [heading] : [];
  });
}

const PROMISES = 'What we promise about secrets';

describe.each([
  // A mark is about few statements where others decide by them whether to trust the product.
  ['docs/security.md', 4],
  ['docs/operations.md', Infinity],
  ['docs/api.md', 8],
  ['README.md', Infinity],
])('%s', (name, maxPerMark) => {
  it('names the tests of its statements, section by section', () => {
    // Each promise has a mark of its own.
    const sections = listSections(showComments(read(name))).filter(
      ({ heading }) => !heading.endsWith(PROMISES),
    );
    expect(sections.length).toBeGreaterThan(5);
    expect(findUnchecked(sections, maxPerMark)).toEqual([]);
  });
});

it('each promise of the README names its tests', () => {
  const [list = ''] =
    listSections(read('README.md')).find(({ heading }) => heading.endsWith(PROMISES))?.parts ?? [];
  const promises = list.split('\n');
  expect(promises.length).toBeGreaterThan(5);
  expect(promises.filter((promise) => !MARK.test(promise))).toEqual([]);
});

it.each([
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'docs/security.md',
  'docs/operations.md',
  'docs/api.md',
  'docs/configuration.md',
  'docs/decisions.md',
  'docs/providers.md',
  'keycloak/README.md',
])('the files that %s names exist', (name) => {
  const text = read(name);
  const links = [...text.matchAll(/\]\(([^)#:\s]+)(?:#[^)]*)?\)/g)].map(([, target]) =>
    path.join(path.dirname(name), target ?? ''),
  );
  const tests = [...text.matchAll(/`(test\/[\w./-]+\.ts)`/g)].map(([, file]) => file ?? '');
  expect([...links, ...tests].filter((file) => !existsSync(path.join(PROJECT, file)))).toEqual([]);
});

it.each([
  ['a section without a mark', '## A\n\nOne.\n', ['## A']],
  ['a statement after the last mark', '## A\n\nOne.\n\n_Checked by `test/a.test.ts`._\n\nTwo.\n', ['## A']],
  ['too many statements for one mark', '## A\n\n1\n\n2\n\n3\n\n_Checked by `test/a.test.ts`._\n', ['## A']],
  ['a mark without a test or a reason', '## A\n\nOne.\n\n_Checked by someone._\n', ['## A']],
  [
    'marked statements',
    '## A\n\nOne.\n\n_Checked by `test/a.test.ts`._\n\n## B\n\nTwo.\n\n_Not tested: reason._\n',
    [],
  ],
])('the check of marks finds %s', (_what, markdown, unchecked) => {
  expect(findUnchecked(listSections(`# Title\n\n${markdown}`), 2)).toEqual(unchecked);
});
