import { expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createScript } from '../../../src/runners/docker/script.ts';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import { createConfig, createJob, openRunner, runToExit, createTarget } from './test-engine.ts';

/** Text that is special to shells, and random text. */
const hostileText = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        "'",
        '"',
        '`',
        '$(',
        ')',
        '\\',
        '\\0',
        '\\n',
        '%s',
        '%',
        '\n',
        '\r',
        ' ',
        '*',
        '&',
        ';',
        '!',
        '\u0081',
        '\u007f',
        '\u0001',
      ),
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 4 }),
    ),
    { maxLength: 30 },
  )
  .map((parts) => parts.join('').replaceAll('\0', ''));
const ROUNDS = 12;

describeOn('docker', 'the script of a job', () => {
  const host = dockerHost();

  for (const image of ['smallImage', 'image'] as const) {
    it(`passes values, names and contents unchanged to a program (shell of ${image})`, async () => {
      const runner = openRunner();
      const target = createTarget(createConfig(host, { image: host[image] }));
      await fc.assert(
        fc.asyncProperty(
          hostileText,
          hostileText,
          fc.uint8Array({ maxLength: 300 }),
          async (value, name, bytes) => {
            const path = `f${name.replaceAll('/', '_').replaceAll('..', '_')}`.slice(0, 60).toWellFormed();
            const job = createJob(
              `printf '%s' "$VALUE" | od -An -v -tx1 | tr -d ' \\n'; echo; cat "./$NAME" - | od -An -v -tx1 | tr -d ' \\n'; ls | wc -l`,
              {
                env: { VALUE: value.toWellFormed(), NAME: path },
                files: [{ path, content: bytes }],
                stdin: bytes,
              },
            );
            const { stdout, stderr, exit } = await runToExit(runner, target, job);
            expect([stderr, exit.cause, exit.code]).toEqual(['', 'exited', 0]);
            const [gotValue = '', rest = ''] = stdout.split('\n');
            expect(gotValue).toBe(Buffer.from(value.toWellFormed()).toString('hex'));
            expect(rest.startsWith(Buffer.concat([bytes, bytes]).toString('hex'))).toBe(true);
          },
        ),
        { numRuns: ROUNDS },
      );
    }, 120_000);
  }

  it('runs nothing of a truncated script', async () => {
    const runner = openRunner();
    const target = createTarget(createConfig(host, { image: host.smallImage }));
    const { text } = createScript(createJob('echo ran'), null, {});
    const body = text.subarray(text.indexOf('\n') + 1).toString();
    for (const part of [0.3, 0.9, 0.99]) {
      const cut = body.slice(0, Math.floor(body.length * part));
      const { stdout } = await runToExit(runner, target, createJob('sh', { stdin: Buffer.from(cut) }));
      expect(stdout).toBe('');
    }
  });
});
