import { describe, expect, it, jest } from '@jest/globals';
import { existsSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { randomUUID } from 'node:crypto';
import { afterThisTest } from '../../lib/ssh/servers.ts';
import { frame, launch, removePrograms, replaceProgram, toReport, type ChangePath } from './local-runs.ts';

jest.setTimeout(120_000);

const [SUPERVISED, SEARCHED, GROUP_ONLY] = ['S', 'N', 'G'].map(frame) as [string, string, string];

const changes =
  (...list: ChangePath[]): ChangePath =>
  (folder) =>
    list.forEach((change) => change(folder));
const withoutSupervisor = removePrograms('perl', 'python');

/** The kinds of hosts, with the shell and what their launcher reports at the start. */
const HOSTS: readonly [name: string, shell: string, changePath: ChangePath, started: string][] = [
  ['Perl', '/usr/bin/dash', () => undefined, SUPERVISED],
  ['Python', '/usr/bin/dash', removePrograms('perl'), SUPERVISED],
  ['neither', '/usr/bin/dash', withoutSupervisor, SEARCHED],
  ['BusyBox', '/usr/bin/busybox', () => undefined, SEARCHED],
];

/** Those without BusyBox, whose shell prefers its own programs to those of the PATH. */
const HOSTS_WITH_PATH = HOSTS.filter(([, shell]) => path.basename(shell) !== 'busybox');

/** A new mount namespace without /proc, as on macOS. */
const WITHOUT_PROC = [
  ...['/usr/bin/unshare', '-m', '/bin/sh', '-c'],
  ...['/usr/bin/mount -t tmpfs none /proc && exec "$0" "$@"'],
];
const likeMacOs = replaceProgram('uname', 'echo Darwin');
const isRoot = process.getuid?.() === 0;
// The scripts need /proc.
const onLinux = process.platform === 'linux' ? describe : describe.skip;

/** A Perl that runs programs of one line only, beside no Python: there is no supervisor. */
const BROKEN_PERL = changes(
  removePrograms('python'),
  replaceProgram('perl', 'case "$*" in *"qw(true)"*) exit 1 ;; esac; exec /usr/bin/perl "$@"'),
);
/** BusyBox before 1.30 runs the first word that is no option. */
const OLD_TIMEOUT = replaceProgram(
  'timeout',
  '[ "$1" = -t ] || { echo "timeout: can\'t execute \'$1\'" >&2; exit 127; }; shift; exec /usr/bin/busybox timeout "$@"',
);

/** A Python that does not start the supervisor. */
const PYTHON_WITHOUT_SUPERVISOR = 'case $1 in -ISc) exit 1 ;; esac; exec /usr/bin/python3 "$@"';
const MACOS_DD = replaceProgram(
  'dd',
  'case "$*" in *iflag*) echo "dd: unknown operand iflag" >&2; exit 1 ;; esac; exec /usr/bin/dd "$@"',
);

onLinux('a host that lacks a program', () => {
  const SEARCH = ['awk', 'cat', 'grep', 'ls'];

  describe.each(HOSTS_WITH_PATH.filter(([name]) => name !== 'Python'))(
    'with %s',
    (_name, shell, changePath) => {
      it.each([...SEARCH, 'dd', 'mkdir', 'rm'])('is refused, and %s is named', async (tool) => {
        const result = await launch(
          shell,
          {},
          {
            changePath: changes(changePath, removePrograms(tool)),
            isSearchable: !SEARCH.includes(tool),
          },
        );
        expect(result).toMatchObject({ stdout: '', stderr: frame(`EVtools,${tool}`) });
      });
    },
  );

  it('names all of them, also those for which neither Perl nor Python stands in', async () => {
    const changePath = removePrograms('perl', 'python', 'setsid', 'timeout', 'rm', 'awk');
    const result = await launch('/usr/bin/dash', {}, { changePath, isSearchable: false });
    expect(result.stderr).toBe(frame('EVtools,awk,rm,setsid,timeout'));
  });

  (isRoot ? it : it.skip)('names /proc', async () => {
    const result = await launch('/usr/bin/dash', {}, { wrapper: WITHOUT_PROC });
    expect(result).toMatchObject({ stdout: '', stderr: frame('EVtools,/proc') });
  });
});

onLinux('a host whose programs fail', () => {
  const failures = ['awk', 'cat', 'grep', 'ls'].flatMap((tool) =>
    ['exit 0', 'kill -9 $$'].map((script) => [tool, script] as const),
  );
  it.each(failures)('never reports that it is clean: %s that does "%s"', async (tool, script) => {
    for (const [, shell, changePath, started] of HOSTS_WITH_PATH) {
      const result = await launch(
        shell,
        { program: { command: 'sleep 1000 & echo ready; sleep 1000' } },
        {
          changePath: changes(changePath, replaceProgram(tool, script)),
          isDone: (output) => output.endsWith('ready\n'),
          isSearchable: false,
        },
      );
      expect(result.stderr).toBe(`${started}${toReport(started, 'U')}`);
    }
  });

  it.each(['exit 0', 'exit 1'])('never reports that files are removed if rm does "%s"', async (script) => {
    for (const [, shell, changePath, started] of HOSTS_WITH_PATH) {
      const runId = randomUUID();
      const folder = path.join(tmpdir(), `ops-run-${runId}`);
      afterThisTest(() => rmSync(folder, { recursive: true, force: true }));
      const result = await launch(
        shell,
        { runId },
        { changePath: changes(changePath, replaceProgram('rm', script)), isSearchable: false },
      );
      expect(existsSync(folder)).toBe(true);
      expect(result.stderr).toBe(`${started}${toReport(started, 'U')}`);
    }
  });
});

onLinux('a search for the processes of a run', () => {
  it.each(HOSTS)('finds them by their environment alone: %s', async (_name, shell, changePath, started) => {
    // It has its own session and parent, and no output of the run.
    const command = 'cd /; (setsid sleep 1000 >/dev/null 2>&1 </dev/null &); echo ready; sleep 1000';
    const runId = randomUUID();
    const result = await launch(
      shell,
      { runId, program: { command } },
      { changePath, isDone: (output) => output.endsWith('ready\n') },
    );
    expect(result.stderr).toBe(`${started}${toReport(started)}`);
  });
});

onLinux('a lease without a heartbeat for 15 s', () => {
  it('is reported', async () => {
    const hosts = [
      ...HOSTS,
      ['neither and mksh', '/usr/bin/mksh', withoutSupervisor, SEARCHED],
      ['a stand-in', '/usr/bin/dash', changes(BROKEN_PERL, removePrograms('timeout', 'setsid')), SEARCHED],
      ['an old BusyBox', '/usr/bin/busybox', OLD_TIMEOUT, SEARCHED],
    ] as const;
    const results = await Promise.all(
      hosts.map(([, shell, changePath]) =>
        launch(shell, { program: { command: 'exec sleep 1000' } }, { changePath }),
      ),
    );
    expect(results.map(({ stderr }) => stderr)).toEqual(
      hosts.map(([, , , started]) => `${started}${toReport(started, 'VL')}`),
    );
  });
});

onLinux('a host without setsid and timeout', () => {
  const withoutTools = removePrograms('setsid', 'timeout');
  const JOB = {
    program: { command: 'cat - file; exit 3' },
    stdin: Buffer.from('input'),
    files: [{ path: 'file', content: Buffer.alloc(70_000, 'x') }],
  };
  it.each([
    ['Perl', changes(withoutTools, BROKEN_PERL)],
    [
      'Python',
      changes(withoutTools, removePrograms('perl'), replaceProgram('python3', PYTHON_WITHOUT_SUPERVISOR)),
    ],
  ])('runs programs and ends them with %s', async (_name, changePath) => {
    const result = await launch('/usr/bin/dash', JOB, { changePath });
    expect(result).toEqual({
      ...{ stdout: `${SEARCHED}input${'x'.repeat(70_000)}`, stderr: `${SEARCHED}${toReport(SEARCHED)}` },
      ...{ code: 3, signal: null },
    });
    const ended = await launch(
      '/usr/bin/dash',
      { program: { command: 'sleep 1000 & echo ready; sleep 1000' } },
      { changePath, isDone: (output) => output.endsWith('ready\n') },
    );
    expect(ended).toMatchObject({ stderr: `${SEARCHED}${toReport(SEARCHED)}`, signal: 'SIGKILL' });
  });

  (isRoot ? it.each : it.skip.each)([
    ['Perl', () => undefined],
    ['Python', removePrograms('perl')],
  ] as const)(
    'and without /proc and GNU dd runs programs, as macOS does, and is never clean: %s',
    async (_name, changePath) => {
      const changed = changes(withoutTools, likeMacOs, changePath, MACOS_DD);
      const result = await launch('/usr/bin/dash', JOB, { changePath: changed, wrapper: WITHOUT_PROC });
      expect(result).toMatchObject({
        ...{ stdout: `${GROUP_ONLY}input${'x'.repeat(70_000)}`, code: 3 },
        stderr: `${GROUP_ONLY}${toReport(GROUP_ONLY, 'U')}`,
      });
      const ended = await launch(
        '/usr/bin/dash',
        { program: { command: 'sleep 1000 & echo ready; sleep 1000' } },
        { changePath: changed, wrapper: WITHOUT_PROC, isDone: (output) => output.endsWith('ready\n') },
      );
      expect(ended).toMatchObject({ stderr: `${GROUP_ONLY}${toReport(GROUP_ONLY, 'U')}`, signal: 'SIGKILL' });
    },
  );
});
