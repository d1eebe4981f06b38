import { describe, expect, it, jest } from '@jest/globals';
import { randomInt } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createCleanupCommand } from '../../../src/runners/ssh/scripts.ts';
import { afterThisTest } from '../../lib/ssh/servers.ts';
import {
  decodeShellCommand,
  frame,
  launch,
  LAUNCH_COMMAND,
  replaceProgram,
  toReport,
  SECRETS,
  type ChangePath,
} from './local-runs.ts';
import { processesWith } from './ssh-runs.ts';

jest.setTimeout(60_000);

const SUPERVISED = frame('S');
const NOT_SUPERVISED = frame('N');

/** The variables that the scripts assign or read from their input. */
function listScriptVariables(): string[] {
  const scripts = [LAUNCH_COMMAND, createCleanupCommand('id')]
    .map(decodeShellCommand)
    .join('\n')
    .replace(
      // Arguments of awk and dd.
      / (-v \w+|bs|count|iflag)=\S+/g,
      '',
    );
  const assigned = Array.from(scripts.matchAll(/(?:^|[\s;({])([a-z_]+)=(?!=)/g), ([, name]) => name ?? '');
  const read = Array.from(scripts.matchAll(/read -r ([a-z ]+)/g), ([, names = '']) => names.split(' '));
  return [...new Set([...assigned, ...read.flat()])].filter((name) => name !== '');
}

const withoutPerl = replaceProgram('perl', 'exit 1');
const withoutPython = replaceProgram('python3', 'exit 1');
/** PERL5OPT that loads a module with this text. */
function createPerlOption(code: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-perl-'));
  afterThisTest(() => rmSync(folder, { recursive: true }));
  writeFileSync(path.join(folder, 'Changed.pm'), `package Changed;\n${code}\n1;\n`);
  return `-I${folder} -MChanged`;
}

// The scripts need /proc.
const onLinux = process.platform === 'linux' ? describe : describe.skip;

onLinux('the environment of an account', () => {
  it.each([
    ['dash', undefined, SUPERVISED],
    ['bash', undefined, SUPERVISED],
    ['bash', withoutPerl, SUPERVISED],
    ['busybox', undefined, NOT_SUPERVISED],
  ] as const)(
    'that has variables of the scripts passes nothing to the program (%s)',
    async (shell, changePath, started) => {
      const names = listScriptVariables();
      expect(names).toEqual(expect.arrayContaining(['mark', 'text', 'kind', 'perl', 'own', 'started']));
      const accountEnv = {
        ...Object.fromEntries(names.map((name) => [name, 'account'])),
        // Bash exports all variables.
        SHELLOPTS: 'allexport',
      };
      const result = await launch(
        `/usr/bin/${shell}`,
        { program: { command: 'cat /proc/self/environ | tr "\\0" "\\n"' }, stdin: Buffer.from('input') },
        { accountEnv, ...(changePath && { changePath }) },
      );
      const received = result.stdout.slice(started.length).split('\n');
      expect(received.filter((line) => names.includes(line.split('=')[0] ?? ''))).toEqual([]);
      for (const secret of Object.values(SECRETS)) expect(received.join('\n')).not.toContain(secret);
      expect(received).toContainEqual(expect.stringMatching(/^OPS_RUN_ID=/));
      expect(result).toMatchObject({ stderr: `${started}${toReport(started)}`, code: 0 });
    },
  );

  it.each<[string, Record<string, string>]>([
    ['PERL_UNICODE=SA', { PERL_UNICODE: 'SA' }],
    ['PERL_UNICODE=SDAL', { PERL_UNICODE: 'SDAL' }],
    ['PERL5OPT=-Mopen=:std,:utf8', { PERL5OPT: '-Mopen=:std,:utf8' }],
    ['PERL5OPT=-CSDA', { PERL5OPT: '-CSDA' }],
    ['PERL5OPT=-w', { PERL5OPT: '-w' }],
    ['PERL5OPT=-Mstrict', { PERL5OPT: '-Mstrict' }],
    ['PERL5OPT=-T, with which Perl starts no program', { PERL5OPT: '-T' }],
    ['PYTHONPATH and PYTHONSTARTUP', { PYTHONPATH: '/nowhere', PYTHONSTARTUP: '/nowhere' }],
  ])('may have %s', async (_name, accountEnv) => {
    const command = '(env -i setsid sleep 1000 &); exit 7';
    const result = await launch('/usr/bin/dash', { program: { command } }, { accountEnv });
    expect(result).toMatchObject({ stdout: SUPERVISED, code: 7 });
    expect(result.stderr.slice(result.stderr.indexOf(SUPERVISED))).toBe(
      `${SUPERVISED}${toReport(SUPERVISED)}`,
    );
  });

  it('in which Perl fails later ends the run without an exit code or a report', async () => {
    const accountEnv = { PERL5OPT: createPerlOption('*CORE::GLOBAL::waitpid = sub { die };') };
    const result = await launch(
      '/usr/bin/dash',
      { program: { command: 'exec sleep 1000 >/dev/null 2>&1' } },
      { accountEnv },
    );
    expect(result).toMatchObject({ code: null, signal: 'SIGKILL' });
    expect(result.stderr).not.toContain(SECRETS.supervisorProof);
  });

  it('in which Perl cannot list its children does not report that none is left', async () => {
    // Another error than ECHILD, as a system call filter may return.
    const accountEnv = {
      PERL5OPT: createPerlOption(
        '*CORE::GLOBAL::waitpid = sub { if ($_[1] & 1) { $! = 1; return -1 } CORE::waitpid($_[0], $_[1]) };',
      ),
    };
    const result = await launch('/usr/bin/dash', { program: { command: 'exit 7' } }, { accountEnv });
    expect(result).toMatchObject({ stderr: `${SUPERVISED}${toReport(SUPERVISED, 'U')}`, code: 7 });
  });
});

/** `e_machine` of ELF files for z/Architecture. */
const S390X = 22;
/** Perl code that changes the machine in the ELF header of 20 bytes that a program reads. */
const readOtherMachine = (machine: number) =>
  `*CORE::GLOBAL::sysread = sub (*\\$$) {
    my $count = CORE::sysread($_[0], \${$_[1]}, $_[2]);
    substr(\${$_[1]}, 18, 2) = pack("v", ${machine}) if $_[2] == 20;
    $count;
  };`;

onLinux('programs that a run puts on the PATH of its account', () => {
  const PROOF = /[0-9a-f]{64}/;
  /** Keeps what it receives, starts a process that has nothing of the run, and claims that all is well. */
  const FALSE_SHELL = `#!/usr/bin/dash
case "$*" in *ops-watch*) ;; *) exit ;; esac
{ echo "$@"; timeout 1 cat; cat /proc/$PPID/environ; } >"\${0%/*}/received" 2>/dev/null
(env -i setsid sleep $(cat "\${0%/*}/number") >/dev/null 2>&1 </dev/null &)
exit 0`;

  it.each([
    ['Perl', () => undefined],
    ['Python', withoutPerl],
  ] as const)('neither receive the proof of %s nor outlive it', async (_name, changePath) => {
    const number = String(randomInt(100_000_000, 1_000_000_000));
    let folder = '';
    const command = `f=\${PATH%%:*}; echo ${number} >"$f/number"; rm "$f/sh"; printf %s "$TEXT" >"$f/sh"; chmod 755 "$f/sh"`;
    const result = await launch(
      '/usr/bin/dash',
      { program: { command }, env: { TEXT: FALSE_SHELL } },
      {
        // Its shell runs the cleanup of the test, too.
        isSearchable: false,
        changePath(path) {
          folder = path;
          changePath(path);
        },
      },
    );
    expect(result).toMatchObject({ stderr: `${SUPERVISED}${toReport(SUPERVISED)}`, code: 0 });
    const received = readFileSync(path.join(folder, 'received'), 'latin1');
    expect(received).toContain('ops-watch');
    expect(received).not.toMatch(PROOF);
    expect(processesWith(`\0${number}\0`)).toEqual([]);
  });
});

onLinux('an interpreter of a host', () => {
  it.each<[string, { changePath?: ChangePath; machine?: number; started: string }]>([
    ['Perl that does not start', { changePath: withoutPerl, started: SUPERVISED }],
    ['Perl on another architecture', { machine: S390X, started: SUPERVISED }],
    [
      'Perl on another architecture, and a Python that does not start',
      { changePath: withoutPython, machine: S390X, started: NOT_SUPERVISED },
    ],
  ])('is replaced by the next one: %s', async (_name, { changePath = () => undefined, machine, started }) => {
    const accountEnv: Record<string, string> =
      machine === undefined ? {} : { PERL5OPT: createPerlOption(readOtherMachine(machine)) };
    const result = await launch(
      '/usr/bin/dash',
      { program: { command: 'for fd in 4 5; do [ ! -e /proc/$$/fd/$fd ] || echo open; done; exit 7' } },
      { changePath, accountEnv },
    );
    expect(result).toEqual({
      stdout: started,
      stderr: `${started}${toReport(started)}`,
      ...{ code: 7, signal: null },
    });
  });
});
