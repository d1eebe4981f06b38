import { describe, expect, it, jest } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import type { Job } from '../../../src/runners/runner.ts';
import { encodeSshJob } from '../../../src/runners/ssh/run.ts';
import { LAUNCH_COMMAND, createCleanupCommand, NOTHING_FOUND } from '../../../src/runners/ssh/scripts.ts';
import { afterThisTest } from '../../lib/ssh/servers.ts';
import { reportMissing } from '../../support/host-availability.ts';

// The shells start hundreds of programs, which takes long on a busy machine.
jest.setTimeout(120_000);

/** Shells that hosts have as `sh`, and their paths on this machine (`test/hosts/install.sh shells`). */
const SHELLS = ['dash', 'bash', 'busybox', 'mksh', 'zsh'].map((name) => [name, `/usr/bin/${name}`] as const);
const MARKER = 'a'.repeat(32);
const frame = (word: string) => `\x1e${MARKER}${word}\n`;

/** Creates a folder of programs for a PATH, as on a host with that shell; for busybox only its own programs. */
function createPath(shell: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-shell-'));
  afterThisTest(() => rmSync(folder, { recursive: true }));
  const isBusybox = path.basename(shell) === 'busybox';
  const programs = isBusybox
    ? execFileSync(shell, ['--list'], { encoding: 'utf8' }).trim().split('\n')
    : readdirSync('/usr/bin');
  for (const program of programs)
    if (program !== 'sh') symlinkSync(isBusybox ? shell : `/usr/bin/${program}`, path.join(folder, program));
  symlinkSync(shell, path.join(folder, 'sh'));
  return folder;
}

interface LauncherResult {
  stdout: string;
  stderr: string;
  code: number | null;
  signal: string | null;
}

/** Runs the launcher as an SSH server does: in a new session, with its input open until the program has ended. */
async function launch(
  shell: string,
  overrides: Partial<Job>,
  isDone: (stdout: string) => boolean,
): Promise<LauncherResult> {
  const env = { PATH: createPath(shell) };
  const runId = randomUUID();
  const job: Job = {
    runId,
    program: { command: 'true' },
    stdin: null,
    files: [],
    env: {},
    workdir: null,
    ...overrides,
  };
  const child = spawn('sh', ['-c', LAUNCH_COMMAND], { env, detached: true });
  const chunks: Buffer[] = [];
  child.stdin.on('error', () => undefined);
  child.stdout.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    if (isDone(Buffer.concat(chunks).toString('latin1'))) child.stdin.end();
  });
  child.once('exit', () => child.stdin.end());
  child.stdin.write(encodeSshJob(job, null, MARKER));
  const stderr = text(child.stderr);
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  const cleanup = execFileSync('sh', ['-c', createCleanupCommand(runId)], { env, encoding: 'latin1' });
  expect(cleanup).toBe(NOTHING_FOUND);
  return { stdout: Buffer.concat(chunks).toString('latin1'), stderr: await stderr, code, signal };
}

// The scripts need /proc.
const onLinux = process.platform === 'linux' ? describe : describe.skip;

const missing = SHELLS.filter(([, file]) => !existsSync(file)).map(([name]) => name);
if (process.platform === 'linux' && missing.length > 0)
  reportMissing(
    `There are no tests with the shells ${missing.join(', ')}: they are not in /usr/bin.`,
    process.env,
  );

onLinux.each(SHELLS.filter(([name]) => !missing.includes(name)))(
  'on a host whose shell is %s',
  (_name, shell) => {
    const untilEnd = () => false;
    // Busybox has neither Perl nor Python.
    const started = frame(path.basename(shell) === 'busybox' ? 'S' : 'H');

    it('a program gets its input, files and environment, and its exit code is reported', async () => {
      const result = await launch(
        shell,
        {
          program: { command: 'cat - "a b/c\nd"; printf "%s" "$A"; exit 3' },
          stdin: Buffer.from('in\0put'),
          files: [{ path: 'a b/c\nd', content: Buffer.alloc(70_000, 'x') }],
          env: { A: '1\n\n2 \\036 %s' },
        },
        untilEnd,
      );
      expect(result).toEqual({
        stdout: `${started}in\0put${'x'.repeat(70_000)}1\n\n2 \\036 %s`,
        stderr: `${started}${frame('V')}`,
        ...{ code: 3, signal: null },
      });
    });

    it('a program is killed with all its children when its lease ends', async () => {
      const command = '(setsid sleep 1000 &); (env -i setsid sleep 1000 &); echo ready; sleep 1000';
      const result = await launch(shell, { program: { command } }, (stdout) => stdout.endsWith('ready\n'));
      expect(result).toMatchObject({ stderr: `${started}${frame('V')}`, code: null, signal: 'SIGKILL' });
    });

    it('a long program is sent as a file unchanged', async () => {
      const command = `${'# filler\n'.repeat(1_000)}echo 'done' "$0"`;
      const result = await launch(shell, { program: { command } }, untilEnd);
      expect(result.stdout).toMatch(/^.*[SH]\ndone \.\/\.ops-run-[0-9a-f-]+\.sh\n$/);
    });

    it('a missing interpreter is reported, and nothing is left', async () => {
      const overrides = { program: { language: 'javascript', code: '' }, env: { PATH: '/nowhere' } } as const;
      expect(await launch(shell, overrides, untilEnd)).toMatchObject({
        stdout: '',
        stderr: frame('EVjavascript'),
      });
    });

    it('truncated input starts nothing, and nothing is left', async () => {
      const result = await launch(shell, { runId: 'cut', program: { command: 'echo ran' } }, untilEnd);
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
        MARKER,
      );
      child.stdin.end(input.subarray(0, input.indexOf('go\n')));
      expect(await text(child.stdout)).toBe('');
      expect(await text(child.stderr)).toBe(frame('EVinput'));
    });
  },
);
