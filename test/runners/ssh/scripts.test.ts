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
import { encodeSshJob } from '../../../src/runners/ssh/job-input.ts';
import { LAUNCH_COMMAND, CLEANUP_VERIFIED, createCleanupCommand } from '../../../src/runners/ssh/scripts.ts';
import { afterThisTest } from '../../lib/ssh/servers.ts';
import { reportMissing } from '../../support/host-availability.ts';

// The shells start hundreds of programs, which takes its time on a busy machine.
jest.setTimeout(120_000);

/** Where the shells of hosts are on this machine (`test/hosts/install.sh shells`); a host has one of them as `sh`. */
const SHELLS = ['dash', 'bash', 'busybox', 'mksh', 'zsh'].map((name) => [name, `/usr/bin/${name}`] as const);
const MARK = 'a'.repeat(32);
const frame = (word: string) => `\x1e${MARK}${word}\n`;

/** A folder of programs for a PATH, as on a host with that shell; with busybox, its own programs alone. */
function makePath(shell: string): string {
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

interface Ended {
  stdout: string;
  stderr: string;
  code: number | null;
  signal: string | null;
}

/** Runs the launcher as a server does: in a session of its own, with its input open until the program has ended. */
async function launch(
  shell: string,
  order: Partial<Job>,
  isOver: (stdout: string) => boolean,
): Promise<Ended> {
  const env = { PATH: makePath(shell) };
  const runId = randomUUID();
  const job: Job = {
    runId,
    program: { command: 'true' },
    stdin: null,
    files: [],
    env: {},
    workdir: null,
    ...order,
  };
  const child = spawn('sh', ['-c', LAUNCH_COMMAND], { env, detached: true });
  const seen: Buffer[] = [];
  child.stdin.on('error', () => undefined);
  child.stdout.on('data', (chunk: Buffer) => {
    seen.push(chunk);
    if (isOver(Buffer.concat(seen).toString('latin1'))) child.stdin.end();
  });
  child.once('exit', () => child.stdin.end());
  child.stdin.write(encodeSshJob(job, null, MARK));
  const stderr = text(child.stderr);
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  const reaped = execFileSync('sh', ['-c', createCleanupCommand(runId)], { env, encoding: 'latin1' });
  expect(reaped).toBe(CLEANUP_VERIFIED);
  return { stdout: Buffer.concat(seen).toString('latin1'), stderr: await stderr, code, signal };
}

// Programs are started as on a host, and watched over by /proc.
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

    it('a program gets its input, files and environment, and its exit code is told', async () => {
      const ended = await launch(
        shell,
        {
          program: { command: 'cat - "a b/c\nd"; printf "%s" "$A"; exit 3' },
          stdin: Buffer.from('in\0put'),
          files: [{ path: 'a b/c\nd', content: Buffer.alloc(70_000, 'x') }],
          env: { A: '1\n\n2 \\036 %s' },
        },
        untilEnd,
      );
      expect(ended).toEqual({
        stdout: `${frame('S')}in\0put${'x'.repeat(70_000)}1\n\n2 \\036 %s`,
        stderr: `${frame('S')}${frame('V')}`,
        ...{ code: 3, signal: null },
      });
    });

    it('a program is killed with all its children when its lease ends', async () => {
      const command = '(setsid sleep 1000 &); (env -i setsid sleep 1000 &); echo ready; sleep 1000';
      const ended = await launch(shell, { program: { command } }, (stdout) => stdout.endsWith('ready\n'));
      expect(ended).toMatchObject({ stderr: `${frame('S')}${frame('V')}`, code: null, signal: 'SIGKILL' });
    });

    it('a long program comes as a file, whatever it holds', async () => {
      const command = `${'# filler\n'.repeat(1_000)}echo 'done' "$0"`;
      const ended = await launch(shell, { program: { command } }, untilEnd);
      expect(ended.stdout).toMatch(/^.*S\ndone \.\/\.ops-run-[0-9a-f-]+\.sh\n$/);
    });

    it('an interpreter that is missing is named, and nothing is left', async () => {
      const order = { program: { language: 'javascript', code: '' }, env: { PATH: '/nowhere' } } as const;
      expect(await launch(shell, order, untilEnd)).toMatchObject({
        stdout: '',
        stderr: frame('EVjavascript'),
      });
    });

    it('input that breaks off starts nothing, and nothing is left', async () => {
      const ended = await launch(shell, { runId: 'cut', program: { command: 'echo ran' } }, untilEnd);
      expect(ended.stdout).toContain('ran');
      const child = spawn('sh', ['-c', LAUNCH_COMMAND], { env: { PATH: makePath(shell) }, detached: true });
      const whole = encodeSshJob(
        {
          runId: randomUUID(),
          program: { command: 'echo ran' },
          stdin: null,
          files: [],
          env: {},
          workdir: null,
        },
        null,
        MARK,
      );
      child.stdin.end(whole.subarray(0, whole.indexOf('go\n')));
      expect(await text(child.stdout)).toBe('');
      expect(await text(child.stderr)).toBe(frame('EVinput'));
    });
  },
);
