import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describeOn } from '../../support/hosts.ts';
import { listLeaks, localTarget } from './leaks.ts';
import { localRunner, runLocally } from './running.ts';

const HELLO = { program: { command: 'echo hello' } };

/** Adds options after those of the runner. */
const withOptions = (options: string) =>
  `args=(); for each in "$@"; do [ "$each" = -- ] && [ -z "$done" ] && { args+=(${options}); done=1; }; args+=("$each"); done; exec /usr/bin/bwrap "\${args[@]}"`;

/** Leaves what Perl opens open for bubblewrap. */
const withOpen = (code: string) =>
  `exec perl -e 'use Socket; $^F = 99; ${code}; exec "/usr/bin/bwrap", @ARGV' -- "$@"`;

describeOn('local', 'the self-test of the local runner', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'local-self-test-'));
    chmodSync(folder, 0o755);
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  afterEach(() => expect(listLeaks()).toEqual([]));

  /** Creates a wrapper of bubblewrap with changed options, like a misconfigured installation. */
  function createWrapper(name: string, lines: string): string {
    const file = path.join(folder, name);
    writeFileSync(file, `#!/bin/bash\n${lines}\n`, { mode: 0o755 });
    return file;
  }

  it.each([
    ['the network of this machine', withOptions('--share-net'), /sockets/],
    ['the files of this machine', withOptions('--ro-bind /tmp /tmp'), /files.*disks/],
    ['another folder of this machine', 'exec /usr/bin/bwrap --ro-bind /home /home "$@"', /folders/],
    ['a disk of this machine under another name', withOptions('--ro-bind / /dev/shm'), /disks/],
    ['a folder of the system that can be written to', withOptions('--bind /tmp /etc'), /write/],
    ['the processes of this machine', withOptions('--ro-bind /proc /proc'), /process/],
    ['a pipe of the product', withOpen('pipe(R, W)'), /pipes/],
    ['one end of a pipe', withOpen('pipe(R, W); close(R)'), /pipes/],
    ['a socket of the product', withOpen('socketpair(A, B, AF_UNIX, SOCK_STREAM, 0)'), /sockets/],
    ['a file of the product', withOpen('open(F, "<", "/etc/hostname")'), /files/],
    ['a device of the product', withOpen('open(F, "<", "/dev/zero")'), /files/],
  ])('refuses to run anything in a sandbox with %s', async (weakness, script, message) => {
    const runner = localRunner({ bwrap: createWrapper(weakness.replaceAll(' ', '-'), script) });
    const { text, exit } = await runLocally(runner, HELLO);
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(exit.message).toMatch(message);
    expect(text).toBe('');
    const result = await runner.test(localTarget(), new AbortController().signal);
    expect(result).toMatchObject({ status: 'forbidden', message: exit.message });
    expect(result.stages.map(({ name, status }) => `${name} ${status}`)).toEqual([
      ...['policy ok', 'permission failed', 'workspace skipped', 'echo skipped'],
      ...['kill skipped', 'cleanup skipped'],
    ]);
  });

  it('refuses to run anything without a sandbox', async () => {
    // Runs the command after the options without a sandbox.
    const bare = createWrapper('none', 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"');
    const { text, exit } = await runLocally(localRunner({ bwrap: bare }), HELLO);
    expect(exit.cause).toBe('infrastructure');
    expect(text).toBe('');
  });

  it('refuses to run anything if bubblewrap fails', async () => {
    const { exit } = await runLocally(localRunner({ bwrap: createWrapper('fails', 'exit 1') }), HELLO);
    expect(exit).toMatchObject({
      cause: 'infrastructure',
      message: expect.stringMatching(/could not be tested/),
    });
  });

  it('reports that bubblewrap is missing', async () => {
    const runner = localRunner({ bwrap: path.join(folder, 'missing') });
    expect((await runLocally(runner, HELLO)).exit).toMatchObject({
      cause: 'infrastructure',
      message: expect.stringMatching(/bubblewrap/),
    });
    const { status, stages } = await runner.test(localTarget(), new AbortController().signal);
    expect(status).toBe('forbidden');
    expect(stages[1]).toMatchObject({ name: 'permission', message: expect.stringMatching(/bubblewrap/) });
  });

  it('is not run if the operator has not enabled local execution', async () => {
    const trace = path.join(folder, 'trace-off');
    const bwrap = createWrapper('traced-off', `echo >> ${trace}; exec /usr/bin/bwrap "$@"`);
    const runner = localRunner({ enabled: false, bwrap });
    const { exit } = await runLocally(runner, HELLO);
    expect(exit).toMatchObject({
      cause: 'infrastructure',
      message: expect.stringMatching(/LOCAL_EXECUTION/),
    });
    const { stages } = await runner.test(localTarget(), new AbortController().signal);
    expect(stages[0]).toMatchObject({ name: 'policy', status: 'failed' });
    expect(existsSync(trace)).toBe(false);
  });

  it('runs once if it passes, and again after it failed', async () => {
    const trace = path.join(folder, 'trace');
    writeFileSync(trace, '');
    chmodSync(trace, 0o666);
    const bwrap = createWrapper(
      'traced',
      `echo >> ${trace}; [ -s ${trace} ] && [ $(wc -l < ${trace}) -gt 1 ] && exec /usr/bin/bwrap "$@"`,
    );
    const runner = localRunner({ bwrap });
    expect((await runLocally(runner, HELLO)).exit.cause).toBe('infrastructure');
    expect((await runLocally(runner, HELLO)).text).toBe('hello\n');
    expect((await runLocally(runner, HELLO)).text).toBe('hello\n');
    // The failed self-test, the passed one, and two runs.
    expect(readFileSync(trace, 'utf8')).toHaveLength(4);
  });
});
