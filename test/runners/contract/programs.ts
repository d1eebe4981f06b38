import { describe, expect } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import type { Language } from '../../../src/runners/runner.ts';
import { exitedWith, type ContractHarness } from './harness.ts';

/** Text with characters that are special to a shell, in any kind of quotes. */
const HOSTILE = `'"$(echo injected)\`echo injected\`; echo injected & echo injected | cat # \\ * ? ~ ! %s {a,b} <x >y\n\t-rf é 💥'`;

/** Programs that read one line and a file, and write to both streams. */
const PROGRAMS: Record<Language, string> = {
  python: [
    'import sys, helper',
    'print(helper.WORD, sys.stdin.read())',
    'print("größer", file=sys.stderr)',
  ].join('\n'),
  javascript: [
    "const { readFileSync } = require('node:fs');",
    "const { WORD } = require('./helper.js');",
    "console.log(WORD + ' ' + readFileSync(0, 'utf8'));",
    "console.error('größer');",
  ].join('\n'),
  bash: ['source ./helper.sh', 'printf "%s %s\\n" "${WORD[0]}" "$(cat)"', 'echo größer >&2'].join('\n'),
};
const HELPERS = [
  { path: 'helper.py', content: Buffer.from('WORD = "word"\n') },
  { path: 'helper.js', content: Buffer.from('exports.WORD = "word";\n') },
  { path: 'helper.sh', content: Buffer.from('WORD=(word)\n') },
];
const COMMENT: Record<Language, string> = { python: '#', javascript: '//', bash: '#' };
const PRINT: Record<Language, (text: string) => string> = {
  python: (text) => `print(${JSON.stringify(text).replaceAll(/[^ -~]+/g, asEscapes)}, end='')`,
  javascript: (text) => `process.stdout.write(${JSON.stringify(text)})`,
  bash: (text) => `printf %s '${text.replaceAll("'", `'\\''`)}'`,
};

export function describePrograms(harness: ContractHarness): void {
  describeStreams(harness);
  describeFolders(harness);
  describeLanguages(harness);
}

function describeStreams({ test, run }: ContractHarness): void {
  describe('input and output', () => {
    test('every byte arrives unchanged on the stream that it was written to', async () => {
      const content = Uint8Array.from({ length: 1024 }, (_, index) => index % 256);
      const files = [{ path: 'bytes', content }];
      const { stdout, stderr, exit, phases } = await run({
        program: { command: 'cat bytes; cat bytes bytes >&2' },
        files,
      });
      expect(exit).toEqual(exitedWith(0));
      expect(phases).toEqual(['preparing', 'started']);
      expect(stdout.equals(content)).toBe(true);
      expect(stderr.equals(Buffer.concat([content, content]))).toBe(true);
    });

    test('each stream keeps its order', async () => {
      const command = 'i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo $i; echo e$i >&2; done';
      const { stdout, stderr } = await run({ program: { command } });
      const numbers = Array.from({ length: 5000 }, (_, index) => index + 1);
      expect(stdout.toString()).toBe(numbers.map((each) => `${each}\n`).join(''));
      expect(stderr.toString()).toBe(numbers.map((each) => `e${each}\n`).join(''));
    });

    test('characters that are split between chunks stay intact', async () => {
      const text = '€'.repeat(300_000);
      const { stdout } = await run({
        program: { command: "printf '\\303'; printf '\\251'; cat" },
        stdin: Buffer.from(text),
      });
      expect(stdout.toString() === `é${text}`).toBe(true);
    });

    test('a large binary input arrives completely', async () => {
      const stdin = randomBytes(2_000_000);
      const { stdout, exit } = await run({ program: { command: 'cat' }, stdin });
      expect(exit).toEqual(exitedWith(0));
      expect(stdout.equals(stdin)).toBe(true);
    });

    test('without an input the program reads the end of input at once', async () => {
      const { stdout, exit } = await run({ program: { command: 'cat; echo end' } });
      expect(stdout.toString()).toBe('end\n');
      expect(exit).toEqual(exitedWith(0));
    });

    test('a program may leave its input unread', async () => {
      const { exit } = await run({ program: { command: 'exit 3' }, stdin: randomBytes(1_000_000) });
      expect(exit).toEqual(exitedWith(3));
    });
  });
}

function describeFolders({ test, run, subject }: ContractHarness): void {
  describe('files, folders and environment', () => {
    test('values of the environment are never interpreted', async () => {
      const env = { HOSTILE, EMPTY: '', _x1: ' two  spaces ' };
      const command = 'printf "%s|%s|%s" "$HOSTILE" "${EMPTY-unset}" "$_x1"';
      const { stdout, stderr } = await run({ program: { command }, env });
      expect(stdout.toString()).toBe(`${HOSTILE}|| two  spaces `);
      expect(stderr.toString()).toBe('');
    });

    test('names of files are never interpreted', async () => {
      const names = ['$(echo injected > bad)', 'a\'b"c;d&e|f', '-rf', ' x ', 'new\nline', 'sub folder/ü/%s'];
      const files = names.map((path) => ({ path, content: Buffer.from(`<${path}>`) }));
      const quoted = names.map((name) => `'./${name.replaceAll("'", `'\\''`)}'`).join(' ');
      const { stdout, exit } = await run({
        program: { command: `cat -- ${quoted} && test ! -e bad` },
        files,
      });
      expect(stdout.toString()).toBe(names.map((name) => `<${name}>`).join(''));
      expect(exit).toEqual(exitedWith(0));
    });

    test('a job without a folder runs in a new one, which is removed afterwards', async () => {
      const first = await run({ program: { command: 'echo x > left && pwd' } });
      const folder = first.stdout.toString().trim();
      expect(folder).toMatch(/^\/./);
      const { exit } = await run({
        program: { command: 'test ! -e "$FOLDER/left"' },
        env: { FOLDER: folder },
      });
      expect(exit).toEqual(exitedWith(0));
    });

    test('a job runs in the folder that it names, and its files are removed afterwards', async () => {
      const name = `contract-${randomBytes(6).toString('hex')}`;
      const files = [{ path: `${name}/deep/file`, content: Buffer.from('content') }];
      const first = await run({
        program: { command: `pwd; cat ${name}/deep/file` },
        files,
        workdir: '/tmp',
      });
      expect(first.stdout.toString()).toBe('/tmp\ncontent');
      const second = await run({ program: { command: `test ! -e /tmp/${name}` } });
      expect(second.exit).toEqual(exitedWith(0));
    });

    test('a job that names no folder runs in the workspace of the server', async () => {
      const target = { ...subject.target(), workspacePath: '/tmp' };
      const { stdout } = await run({ program: { command: 'pwd' }, target });
      expect(stdout.toString()).toBe('/tmp\n');
    });

    test('a missing folder is reported, and no part of its name is executed', async () => {
      const workdir = `/tmp/none'; echo injected; "$(echo injected >&2)`;
      const { stdout, stderr, exit } = await run({ program: { command: 'echo ran' }, workdir });
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
      expect(exit.message).toMatch(/folder/i);
      expect(stdout.toString() + stderr.toString()).toBe('');
    });
  });
}

function describeLanguages({ test, run, subject }: ContractHarness): void {
  describe('languages', () => {
    for (const language of subject.capabilities.languages) {
      test(`${language} reads its input and the files beside it, and writes to both streams`, async () => {
        const program = { language, code: PROGRAMS[language] };
        const { stdout, stderr, exit } = await run({ program, files: HELPERS, stdin: Buffer.from('input') });
        expect(stderr.toString()).toBe('größer\n');
        expect(stdout.toString()).toBe('word input\n');
        expect(exit).toEqual(exitedWith(0));
      });

      test(`${language} code is only interpreted by its interpreter, and may be long`, async () => {
        const padding = `\n${COMMENT[language]} ${'x'.repeat(300_000)}`;
        const program = { language, code: PRINT[language](HOSTILE) + padding };
        const { stdout, exit } = await run({ program });
        expect(stdout.toString()).toBe(HOSTILE);
        expect(exit).toEqual(exitedWith(0));
      });
    }

    test('a missing interpreter is an infrastructure error that names it', async () => {
      const { target = subject.target, language, env = {} } = subject.missingInterpreter;
      const program = { language, code: '' };
      const { exit } = await run({ program, env, target: target() });
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
      expect(exit.message).toMatch({ python: /python/i, javascript: /node/i, bash: /bash/i }[language]);
    });
  });
}

/** Escapes text for Python, which may read its source in any locale. */
function asEscapes(text: string): string {
  return Array.from(
    text,
    (character) => `\\U${character.codePointAt(0)?.toString(16).padStart(8, '0')}`,
  ).join('');
}
