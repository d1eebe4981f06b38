import { describe, expect, it, jest } from '@jest/globals';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { encodeSshJob } from '../../../src/runners/ssh/run.ts';
import { reportMissing } from '../../support/host-availability.ts';
import { afterThisTest } from '../../lib/ssh/servers.ts';
import { createPath, frame, launch, LAUNCH_COMMAND, READY, SECRETS, toReport } from './local-runs.ts';

// The shells start hundreds of programs, which takes long on a busy machine.
jest.setTimeout(120_000);

/** Shells that hosts have as `sh`, and their paths on this machine (`test/hosts/install.sh shells`). */
const SHELLS = ['dash', 'bash', 'busybox', 'mksh', 'zsh'].map((name) => [name, `/usr/bin/${name}`] as const);
// The scripts need /proc.
const onLinux = process.platform === 'linux' ? describe : describe.skip;

const missing = SHELLS.filter(([, file]) => !existsSync(file)).map(([name]) => name);
if (process.platform === 'linux' && missing.length > 0)
  reportMissing(
    `There are no tests with the shells ${missing.join(', ')}: they are not in /usr/bin.`,
    process.env,
  );

describe('the command that starts a run', () => {
  // Dropbear closes the connection, with all its channels, on a longer one (MAX_CMD_LEN in its sysoptions.h).
  it('has less than 9,000 bytes', () => {
    expect(Buffer.byteLength(LAUNCH_COMMAND)).toBeLessThan(9_000);
  });
});

onLinux.each(SHELLS.filter(([name]) => !missing.includes(name)))(
  'on a host whose shell is %s',
  (_name, shell) => {
    // Busybox has neither Perl nor Python.
    const started = frame(path.basename(shell) === 'busybox' ? 'N' : 'S');

    it('a program gets its input, files and environment, and its exit code is reported', async () => {
      const result = await launch(shell, {
        program: { command: 'cat - "a b/c\nd"; printf "%s" "$A"; exit 3' },
        stdin: Buffer.from('in\0put'),
        files: [{ path: 'a b/c\nd', content: Buffer.alloc(70_000, 'x') }],
        env: { A: '1\n\n2 \\036 %s' },
      });
      expect(result).toEqual({
        stdout: `${started}in\0put${'x'.repeat(70_000)}1\n\n2 \\036 %s`,
        stderr: `${started}${toReport(started)}`,
        ...{ code: 3, signal: null },
      });
    });

    it('a program is killed with all its children when its lease ends', async () => {
      const command = '(setsid sleep 1000 &); (env -i setsid sleep 1000 &); echo ready; sleep 1000';
      const result = await launch(
        shell,
        { program: { command } },
        { isDone: (stdout) => stdout.endsWith('ready\n') },
      );
      expect(result).toMatchObject({
        stderr: `${started}${toReport(started)}`,
        code: null,
        signal: 'SIGKILL',
      });
    });

    it('a long program is sent as a file unchanged', async () => {
      const command = `${'# filler\n'.repeat(1_000)}echo 'done' "$0"`;
      const result = await launch(shell, { program: { command } });
      expect(result.stdout).toMatch(/^.*[SN]\ndone \.\/\.ops-run-[0-9a-f-]+\.sh\n$/);
    });

    it('Python code runs unbuffered, without compiled files, by the first name that the PATH of the job has', async () => {
      const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-python-'));
      afterThisTest(() => rmSync(folder, { recursive: true }));
      const program = path.join(folder, 'python');
      // What Python does is not of interest: BusyBox hosts have none.
      writeFileSync(program, '#!/bin/sh\necho "$@"\nexec /bin/cat "$3"\n', { mode: 0o755 });
      const result = await launch(shell, {
        program: { language: 'python', code: 'the code' },
        env: { PATH: folder, name: 'of the job', file: 'of the job' },
      });
      expect(result.stdout).toMatch(/^.*[SN]\n-u -B \.\/\.ops-run-[0-9a-f-]+\.py\nthe code$/);
    });

    it('a missing interpreter is reported, and nothing is left', async () => {
      const overrides = { program: { language: 'javascript', code: '' }, env: { PATH: '/nowhere' } } as const;
      expect(await launch(shell, overrides)).toMatchObject({
        stdout: '',
        stderr: frame('EVjavascript'),
      });
    });

    it('truncated input starts nothing, and nothing is left', async () => {
      const result = await launch(shell, { runId: 'cut', program: { command: 'echo ran' } });
      expect(result.stdout).toContain('ran');
      const child = spawn('sh', ['-c', LAUNCH_COMMAND], { env: { PATH: createPath(shell) }, detached: true });
      const input = encodeSshJob(
        {
          runId: randomUUID(),
          program: { command: 'echo ran' },
          stdin: null,
          files: [],
          env: {},
          workdir: null,
        },
        null,
        SECRETS,
      );
      child.stdin.end(input.subarray(0, input.indexOf('go\n')));
      expect(await Promise.all([text(child.stdout), text(child.stderr)])).toEqual([READY, frame('EVinput')]);
    });
  },
);
