import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';

const SOURCE = path.resolve(import.meta.dirname, '../../src');
const LINES = 5_000;
/** So that the next lines are written while some are still waiting. */
const PAUSE = 'await new Promise(setImmediate);';
const SECRET = 'sk-hidden0123456789';

/** How a process ends, and what its last line is. */
const ENDS: [how: string, end: string, exitCode: number, last: object][] = [
  ['by itself', '', 0, { attempt: LINES }],
  ['by process.exit', 'process.exit(3);', 3, { attempt: LINES }],
  [
    'by process.exit in a timer',
    'setTimeout(() => process.exit(3), 1); await new Promise(() => {});',
    3,
    { attempt: LINES },
  ],
  ['after a graceful stop', 'await stream.flush(); process.exit(0);', 0, { attempt: LINES }],
  [
    'after an error that nothing has caught',
    `setTimeout(() => { throw Object.assign(new Error('the fault'), { body: '${SECRET}' }); }, 1); await new Promise(() => {});`,
    1,
    { level: 60, event: 'fatal_error', err: expect.objectContaining({ message: 'the fault' }) },
  ],
  [
    'after a rejected promise that nothing has caught',
    `void Promise.reject(Object.assign(new Error('the fault'), { body: '${SECRET}' })); await new Promise(() => {});`,
    1,
    { level: 60, event: 'fatal_error', err: expect.objectContaining({ message: 'the fault' }) },
  ],
];

const TARGETS: [target: string, open: string][] = [
  ['standard output', `const stream = openStandardOutput();`],
  ["the quick start's log", `const stream = openAppLog(process.argv[1], () => {});`],
];

describe.each(TARGETS)('%s has every line', (target, open) => {
  it.each(ENDS)('of a process that ends %s', async (_how, end, exitCode, last) => {
    const folder = await mkdtemp(path.join(tmpdir(), 'ops-log-'));
    const file = path.join(folder, 'app.log');
    try {
      const child = spawn(process.execPath, ['--input-type=module', '-e', toProgram(open, end), file], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const exited = once(child, 'close');
      let errors = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
      const output = await readSlowly(child.stdout);
      expect(await exited).toEqual([exitCode, null]);
      const text = target === 'standard output' ? output : readFileSync(file, 'utf8');
      const lines = text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      expect(lines).toContainEqual(expect.objectContaining(last));
      const attempts = lines.flatMap(({ attempt }) => (attempt === undefined ? [] : [Number(attempt)]));
      // What is being written at the end can be in the file after the last line.
      expect(attempts.sort((a, b) => a - b)).toEqual(Array.from({ length: LINES }, (_, n) => n + 1));
      expect(text + errors).not.toContain(SECRET);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

function toProgram(open: string, end: string): string {
  return `
    import { createLog, openStandardOutput } from '${SOURCE}/lib/log.ts';
    import { openAppLog } from '${SOURCE}/dev/quickstart/app-log.ts';
    import { endOnFatalError } from '${SOURCE}/cli/fatal-errors.ts';
    ${open}
    const log = createLog('info', stream);
    endOnFatalError(log, (text) => process.stderr.write(text));
    for (let attempt = 1; attempt <= ${LINES}; attempt += 1) {
      log.info({ event: 'request', attempt, name: 'x'.repeat(100) }, 'request');
      if (attempt % 100 === 0 && attempt < ${LINES}) ${PAUSE}
    }
    ${end}`;
}

/** Reads as a slow collector of logs does, so that the pipe is full when the process ends. */
async function readSlowly(output: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of output) {
    chunks.push(chunk);
    await delay(2);
  }
  return Buffer.concat(chunks).toString();
}
