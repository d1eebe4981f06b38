import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { Linter } from 'eslint';
import ts from 'typescript';
import tseslint from 'typescript-eslint';
import { refusedWords } from '../scripts/refused-words.ts';

const ROOT = path.resolve(import.meta.dirname, '..');
/** Role names: each feature may have its own. */
const ROLES = ['routes', 'schema', 'service', 'store', 'index', 'config', 'errors'];

/** The lines on which a source text breaks the rule. */
function lint(text: string, file = 'src/lib/ids.ts'): number[] {
  const config: Linter.Config = {
    files: ['**/*.ts'],
    languageOptions: { parser: tseslint.parser },
    plugins: { language: { rules: { 'refused-words': refusedWords } } },
    rules: { 'language/refused-words': 'error' },
  };
  return new Linter({ cwd: ROOT })
    .verify(text, [config], path.join(ROOT, file))
    .map(({ line, ruleId, message }) => {
      expect([ruleId, message]).toEqual(['language/refused-words', expect.any(String)]);
      return line;
    });
}

/** ESLint with the configuration of the project, in a process of its own, which can load it. */
const ESLINT_PROGRAM = `
  import { ESLint } from 'eslint';
  const [text] = process.argv.slice(1);
  const eslint = new ESLint({
    // Other rules load the types of the whole project.
    ruleFilter: ({ ruleId }) => ['language/refused-words', 'max-lines'].includes(ruleId),
    overrideConfig: { languageOptions: { parserOptions: { projectService: false } } },
  });
  const [result] = await eslint.lintText(text, { filePath: 'src/gateway/routes.ts' });
  const readRules = async (file) => (await eslint.calculateConfigForFile(file)).rules;
  const rules = { server: await readRules('src/server.ts'), settings: await readRules('src/config/settings.ts') };
  console.log(JSON.stringify({ ruleIds: result.messages.map(({ ruleId }) => ruleId), rules }));
`;

/** @returns the rules that refuse the text as a source file, and all rules of two files. */
function runEslint(text: string) {
  const args = ['--input-type=module', '--eval', ESLINT_PROGRAM, text];
  const output = execFileSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' });
  return JSON.parse(output) as {
    ruleIds: string[];
    rules: Record<'server' | 'settings', Record<string, unknown>>;
  };
}

describe('refused words', () => {
  it.each([
    ['a comment', 'export {};\n// The key is told to the caller.', 2],
    ['a comment over two lines', 'export {};\n// Nothing is to\n// be had here.', 2],
    ['a docstring over several lines', '/**\n * Nothing is to\n * be had here.\n */\nexport {};', 1],
    ['a message', "\n\nthrow new Error('Nobody is there');", 3],
    ['a message of one word', "throw new Error('Nobody');", 1],
    ['a template', 'export const text = (name: string) => `${name} lives here`;', 1],
    ['a template after a line break', 'export const text = `one\\nnews here`;', 1],
    ['an exported function', 'export function printNews() {}', 1],
    ['a default export', 'export default function printNews() {}', 1],
    ['an exported constant', 'export const WISH = 1;', 1],
    ['an exported binding', 'export const { wish } = { wish: 1 };', 1],
    ['an exported class', 'export class Stranger {}', 1],
    ['an exported interface', 'export interface SSHNews2 {}', 1],
    ['an exported type', 'export type News = 1;', 1],
    ['an exported enumeration', 'export enum News {}', 1],
    ['an export under another name', 'const a = 1;\nexport { a as whoever };', 2],
    ['an export of a module under a name', "export * as news from './a.ts';", 1],
  ])('are found in %s', (_place, text, line) => {
    expect([...new Set(lint(text))]).toEqual([line]);
  });

  it.each(['src/keys/stored-elsewhere.ts', 'src/leftovers/store.ts'])('are found in the path %s', (file) => {
    expect(lint('export {};', file)).toEqual([1]);
  });

  it.each([
    ['part of another word', '// A newsletter, a wishbone and olives.'],
    ['a literal without a blank, which can be a name on the wire', "export const state = 'told';"],
    ['a local name', 'const told = 1;\nexport const value = told;'],
    ['the Unix account', '// Files belong to the account nobody.'],
    ['comments that other lines separate', '// Nothing is to\nexport {};\n// be had here.'],
  ])('are not found in %s', (_place, text) => {
    expect(lint(text)).toEqual([]);
  });
});

describe('npm run check', () => {
  const { check } = (
    JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as { scripts: { check: string } }
  ).scripts;

  it('lints everything, and checks the imports', () => {
    expect(check.split(' && ')).toEqual(
      expect.arrayContaining(['eslint .', 'depcruise src --config .dependency-cruiser.cjs']),
    );
  });

  it('refuses the words and more than 300 lines, the latter not in the table of settings', () => {
    const { ruleIds, rules } = runEslint(`// Nobody reads this.\n${'export {};\n'.repeat(300)}`);
    expect(ruleIds).toEqual(['language/refused-words', 'max-lines']);
    expect([rules.server['max-lines'], rules.server['size/function-length']]).toEqual([
      [2, { max: 300 }],
      [2, { max: 60 }],
    ]);
    expect([rules.settings['max-lines'], rules.settings['language/refused-words']]).toEqual([undefined, [2]]);
  });
});

describe('source files', () => {
  it('export each name once, except role names', () => {
    const files = new Map<string, string[]>();
    for (const file of globSync('src/**/*.ts', { cwd: ROOT })) {
      for (const name of exportedNames(readFileSync(path.join(ROOT, file), 'utf8'))) {
        files.set(name, [...(files.get(name) ?? []), file]);
      }
    }
    expect(files.size).toBeGreaterThan(500);
    const repeated = [...files].filter(([name, places]) => places.length > 1 && !ROLES.includes(name));
    expect(repeated).toEqual([]);
  });
});

/** The names that a module declares and exports; names that it passes on from another module do not count. */
function exportedNames(text: string): Set<string> {
  const file = ts.createSourceFile('a.ts', text, ts.ScriptTarget.Latest);
  const names = new Set<string>();
  for (const statement of file.statements) {
    const isExported =
      ts.canHaveModifiers(statement) &&
      ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);
    const declared: ts.Node[] = ts.isVariableStatement(statement)
      ? [...statement.declarationList.declarations]
      : [statement];
    for (const node of isExported ? declared : []) {
      const name = ts.getNameOfDeclaration(node as ts.Declaration);
      if (name && ts.isIdentifier(name)) names.add(name.text);
    }
    if (ts.isExportDeclaration(statement) && !statement.moduleSpecifier && statement.exportClause)
      ts.forEachChild(statement.exportClause, (node) => {
        if (ts.isExportSpecifier(node)) names.add(node.name.text);
      });
  }
  return names;
}
