import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openAppLog } from '../../../src/dev/quickstart/app-log.ts';
import { until } from '../../support/until.ts';

let folder: string;
let messages: string[];
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ops-log-'));
  messages = [];
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const open = (file: string) => openAppLog(file, (text) => messages.push(text));

describe("the app's log", () => {
  it('is appended to a file that only its owner can read', async () => {
    const file = path.join(folder, 'app.log');
    for (const line of ['one\n', 'two\n']) {
      const log = open(file);
      log.write(line);
      await log.close();
    }
    expect(readFileSync(file, 'utf8')).toBe('one\ntwo\n');
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it('refuses the start with a message if it cannot be opened', () => {
    const file = path.join(folder, 'app.log');
    mkdirSync(file);
    expect(() => open(file)).toThrow(`${file} cannot be written: EISDIR`);
  });

  const onLinux = process.platform === 'linux' ? it : it.skip;
  onLinux('prints one message if it can no longer be written, and the app keeps running', async () => {
    const log = open('/dev/full');
    log.write('lost\n');
    await until(() => messages.length, Boolean);
    log.write('lost too\n');
    await log.close();
    expect(messages).toEqual([expect.stringMatching(/^\/dev\/full can no longer be written \(ENOSPC/)]);
  });

  it('has at most 5 files of at most 10 MB after more than 60 MB, without a gap before the newest line', async () => {
    const file = path.join(folder, 'app.log');
    const log = open(file);
    const lines = createLines(64 * 1024);
    for (const line of lines) log.write(line);
    await log.close();
    const sizes = readdirSync(folder).map((name) => statSync(path.join(folder, name)).size);
    expect(sizes.length).toBe(MAX_FILES);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(10 * 1024 * 1024);
    const kept = readAll(file);
    expect(kept).toEqual(lines.join('').slice(-kept.length));
    for (const name of readdirSync(folder))
      expect(statSync(path.join(folder, name)).mode & 0o777).toBe(0o600);
    expect(messages).toEqual([]);
  });

  it('rotates a file that an earlier process has filled', async () => {
    const file = path.join(folder, 'app.log');
    writeFileSync(file, 'x'.repeat(10 * 1024 * 1024));
    const log = open(file);
    log.write('newest\n');
    await log.close();
    expect(readFileSync(file, 'utf8')).toBe('newest\n');
    expect(statSync(`${file}.1`).size).toBe(10 * 1024 * 1024);
  });

  onLinux('is followed across files by tail -F', async () => {
    const file = path.join(folder, 'app.log');
    const log = open(file);
    log.write('first\n');
    await log.flush();
    const tail = spawn('tail', ['-F', '-n', '+1', '-s', '0.1', file], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const ended = once(tail, 'exit');
    let output = '';
    tail.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    try {
      await until(
        () => output,
        (text) => text.includes('first\n'),
      );
      for (const line of createLines(12 * 1024)) log.write(line);
      log.write('newest\n');
      await log.flush();
      expect(readdirSync(folder)).toHaveLength(2);
      await until(
        () => output,
        (text) => text.endsWith('newest\n'),
      );
    } finally {
      tail.kill();
      await ended;
      await log.close();
    }
  });

  it('has whole lines in its files after the process was killed, and is continued', async () => {
    const file = path.join(folder, 'app.log');
    const program = `
      import { openAppLog } from ${JSON.stringify(APP_LOG)};
      const log = openAppLog(${JSON.stringify(file)}, () => process.exit(1));
      for (let n = 0; ; n += 1) {
        log.write(\`\${n} ${'x'.repeat(1_000)}\n\`);
        if (n % 500 === 0) await new Promise(setImmediate);
      }`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'ignore' });
    const exited = once(child, 'exit');
    await until(
      () => readdirSync(folder).length,
      (count) => count > 2,
    );
    child.kill('SIGKILL');
    expect(await exited).toEqual([null, 'SIGKILL']);
    const numbers = readAll(file)
      .trimEnd()
      .split('\n')
      .map((line) => Number(line.split(' ')[0]));
    expect(numbers).toEqual(numbers.map((_, index) => (numbers[0] ?? 0) + index));
    const log = open(file);
    log.write('newest\n');
    await log.close();
    expect(readAll(file)).toMatch(/x\nnewest\n$/);
  });
});

const MAX_FILES = 5;
const APP_LOG = path.resolve(import.meta.dirname, '../../../src/dev/quickstart/app-log.ts');

/** Lines of about 1 KB, each another one. */
function createLines(count: number): string[] {
  return Array.from({ length: count }, (_, number) => `${number} ${'x'.repeat(1_024)}\n`);
}

/** What the files have, the oldest first. */
function readAll(file: string): string {
  const count = readdirSync(path.dirname(file)).length;
  const names = Array.from({ length: count }, (_, number) => (number === 0 ? file : `${file}.${number}`));
  return names
    .reverse()
    .map((name) => readFileSync(name, 'utf8'))
    .join('');
}
