import { describe, expect, it, jest } from '@jest/globals';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { encodeSshJob } from '../../../src/runners/ssh/run.ts';
import { reportMissing } from '../../support/host-availability.ts';
import { afterThisTest } from '../../lib/ssh/servers.ts';
import {
  createJobServer,
  createPath,
  frame,
  launch,
  LAUNCH_COMMAND,
  READY,
  SECRETS,
  toReport,
} from './local-runs.ts';

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

/** A folder for programs that is removed after the test. */
function createFolder(name = 'ops-center-python-'): string {
  const folder = mkdtempSync(path.join(tmpdir(), name));
  afterThisTest(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Puts a program that prints its arguments and its code into a folder. */
function writeInterpreter(folder: string, name: string, text = '', mode = 0o755): string {
  const file = path.join(folder, name);
  writeFileSync(file, `#!/bin/sh\nprintf "%s" "${text}"\n/bin/cat "$3"\n`, { mode });
  return file;
}

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
      const folder = createFolder();
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

    it.each([
      ['a path with blanks and characters of shells', `it's "a" $(exit) \\ *;`, 'my python', true],
      ['a name on the PATH of the environment', 'bin-', 'python9', false],
    ])('code runs by the program that the server names: %s', async (_name, folderName, name, isPath) => {
      const folder = createFolder(folderName);
      const file = writeInterpreter(folder, name, '$TOKEN $OTHER ');
      const interpreters = { python: isPath ? file : name, javascript: null, bash: null };
      const environment = { PATH: `${folder}:/usr/bin:/bin`, TOKEN: "server's  $(exit)", OTHER: 'server' };
      const result = await launch(
        shell,
        { program: { language: 'python', code: 'the code' }, env: { OTHER: 'job' } },
        { config: { interpreters, environment } },
      );
      expect(result.stdout).toBe(`${started}server's  $(exit) job the code`);
    });

    it.each<[string, (folder: string) => string]>([
      ['is missing', (folder) => path.join(folder, 'none')],
      ['may not be run', (folder) => writeInterpreter(folder, 'python', '', 0o644)],
      [
        'is a folder',
        (folder) => {
          mkdirSync(path.join(folder, 'python'));
          return path.join(folder, 'python');
        },
      ],
      ['is on no PATH', () => 'python-of-nowhere'],
    ])('no other program runs the code when the one that the server names %s', async (_name, create) => {
      const interpreters = { python: create(createFolder()), javascript: null, bash: null };
      const result = await launch(
        shell,
        { program: { language: 'python', code: 'print(1)' } },
        { config: { interpreters } },
      );
      expect(result).toMatchObject({ stdout: '', stderr: frame('EVpython') });
    });

    it.each([
      ['command', 'true'],
      ['script', '# filler\n'.repeat(1_000)],
    ])('a %s is not started by a PATH that has no shell', async (kind, command) => {
      const config = { environment: { PATH: '/nowhere' } };
      const result = await launch(shell, { program: { command } }, { config });
      // BusyBox starts its own programs without a search.
      const expected =
        path.basename(shell) === 'busybox' ? { code: 0 } : { stdout: '', stderr: frame(`EV${kind}`) };
      expect(result).toMatchObject(expected);
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
        createJobServer(),
        SECRETS,
      );
      child.stdin.end(input.subarray(0, input.indexOf('go\n')));
      expect(await Promise.all([text(child.stdout), text(child.stderr)])).toEqual([READY, frame('EVinput')]);
    });
  },
);
