import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from '@jest/globals';
import { Linter } from 'eslint';
import { refusedWords } from '../scripts/refused-words.ts';

const ROOT = path.resolve(import.meta.dirname, '..');
/** Role names: each feature may have its own. */
const ROLES = ['routes', 'schema', 'service', 'store', 'index', 'config', 'errors'];

/** The lines on which a source text breaks the rule. */
function lint(text: string, file = 'src/lib/ids.js'): number[] {
  const config = {
    plugins: { language: { rules: { 'refused-words': refusedWords } } },
    rules: { 'language/refused-words': 'error' },
  } as const;
  return new Linter().verify(text, [config], file).map(({ line, ruleId }) => {
    expect(ruleId).toBe('language/refused-words');
    return line;
  });
}

describe('refused words', () => {
  it.each([
    ['a comment', 'export {};\n// The key is told to the caller.', 2],
    ['a docstring over several lines', '/**\n * Nothing is to\n * be had here.\n */\nexport {};', 1],
    ['a message', "\n\nthrow new Error('Nobody is there');", 3],
    ['a template', 'export const text = (name) => `${name} lives here`;', 1],
    ['an exported function', 'export function printNews() {}', 1],
    ['an exported constant', 'export const WISH = 1;', 1],
    ['an export under another name', 'const a = 1;\nexport { a as whoever };', 2],
  ])('are found in %s', (_place, text, line) => {
    expect(lint(text)).toEqual([line]);
  });

  it('are found in a file name', () => {
    expect(lint('export {};', 'src/keys/stored-elsewhere.js')).toEqual([1]);
  });

  it.each([
    ['part of another word', '// A newsletter, a wishbone and olives.'],
    ['a literal without a blank, which can be a name on the wire', "export const state = 'told';"],
    ['a local name', 'const told = 1;\nexport const value = told;'],
    ['the Unix account', '// Files belong to the account nobody.'],
  ])('are not found in %s', (_place, text) => {
    expect(lint(text)).toEqual([]);
  });
});

describe('npm run check', () => {
  it('refuses the words and files of more than 300 lines in src', async () => {
    const eslint = path.join(ROOT, 'node_modules', 'eslint', 'bin', 'eslint.js');
    const run = promisify(execFile);
    const { stdout } = await run(process.execPath, [eslint, '--print-config', 'src/lib/ids.ts'], {
      cwd: ROOT,
    });
    const { rules } = JSON.parse(stdout) as { rules: Record<string, unknown> };
    expect(rules['language/refused-words']).toEqual([2]);
    expect(rules['max-lines']).toEqual([2, { max: 300 }]);
  });
});

describe('source files', () => {
  it('export each name once, except role names', () => {
    const files = new Map<string, string[]>();
    for (const file of globSync('src/**/*.ts', { cwd: ROOT })) {
      const text = readFileSync(path.join(ROOT, file), 'utf8');
      const pattern = /^export (?:async )?(?:function\*?|const|class|interface|type|enum) (\w+)/gm;
      for (const name of new Set([...text.matchAll(pattern)].map(([, found]) => found ?? ''))) {
        files.set(name, [...(files.get(name) ?? []), file]);
      }
    }
    expect(files.size).toBeGreaterThan(500);
    const repeated = [...files].filter(([name, places]) => places.length > 1 && !ROLES.includes(name));
    expect(repeated).toEqual([]);
  });
});
