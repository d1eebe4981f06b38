import { describe, expect, it, jest } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { chmodSync, chownSync, copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createLog } from '../../../src/lib/log.ts';
import type { StopCause } from '../../../src/runners/runner.ts';
import { supervise } from '../../../src/runners/supervise.ts';
import { afterThisTest, serverAt } from '../../lib/ssh/servers.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { itTogether } from '../../support/it-together.ts';
import {
  createJob,
  LIMITS,
  openRunner,
  processesWith,
  readAll,
  targetAt,
  untilEnded,
  type RunResult,
} from './ssh-runs.ts';

jest.setTimeout(60_000);

/**
 * Commands that start a process which has nothing of the run: no environment, session, folder, output or parent. `$N` is
 * an argument of that process, unique to the test.
 */
const ESCAPES: Readonly<Record<string, string>> = {
  'a new session': 'env -i setsid sleep $N &',
  'two forks': `env -i setsid sh -c '(setsid sleep $0 &) & exit' $N &`,
  nohup: 'env -i nohup setsid sleep $N &',
  'closed descriptors': 'env -i setsid sleep $N <&- >&- 2>&- &',
  'another name': `env -i setsid bash -c 'exec -a "[kworker/u9:9]" sleep $0' $N &`,
  'ignored signals': `env -i setsid sh -c 'trap "" HUP INT TERM; while :; do sleep 1; done' $N &`,
  'many children': `env -i setsid sh -c 'i=0; while [ $i -lt 100 ]; do setsid sleep $0 & i=$((i+1)); done; wait' $N &`,
  // Each process starts the next one in a new session, and ends.
  succession: `env -i setsid perl -MPOSIX -e 'my $end = time + 60; while (time < $end) { exit if fork; POSIX::setsid() }' $N &`,
};

/** Starts the processes of some escapes, and waits until their arguments are those of running processes. */
function createEscape(kinds: readonly string[]) {
  const numbers = kinds.map(() => String(randomInt(100_000_000, 1_000_000_000)));
  const commands = kinds.map((kind, index) => {
    // The number is no argument of the shells that start or await the process.
    const start = `N=$N${index}; (cd /; ${ESCAPES[kind] ?? ''}) >/dev/null 2>&1 </dev/null`;
    const isRunning = 'case "$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" " ")" in *" $N "*)';
    return `${start}\nuntil ${isRunning} true ;; *) false ;; esac; do :; done`;
  });
  const env = Object.fromEntries(numbers.map((number, index) => [`N${index}`, number]));
  const list = () => numbers.map((number) => processesWithArgument(number));
  const kill = () =>
    list()
      .flat()
      .forEach((pid) => process.kill(Number(pid), 'SIGKILL'));
  afterThisTest(() => {
    try {
      kill();
    } catch {
      // It has ended meanwhile.
    }
  });
  return {
    command: commands.join('\n'),
    env,
    /** The escapes whose processes run. */
    listAlive: () => kinds.filter((_kind, index) => (list()[index] ?? []).length > 0),
  };
}

/** The processes of this machine that have this argument. */
function processesWithArgument(argument: string): string[] {
  return processesWith(`\0${argument}\0`);
}

/**
 * A Perl program that stops the supervisor ($PPID) while that kills its children, so that the supervisor gives up after
 * 3 s; then it stops the watcher, reads what that knows, and reports with it on the run's stderr. Its chain of processes
 * gives it time: the supervisor kills one of them at a time.
 */
const FORGERY = String.raw`
use POSIX;
my ($supervisor, $run) = @ARGV;
undef $/;
open my $report, ">&", \*STDERR;
open STDOUT, ">", "/dev/null";
open STDERR, ">", "/dev/null";
chdir "/";
my $first = fork // exit;
exit if $first;
POSIX::setsid();
$first = $$;
for (1 .. 60) {
  my $next = fork // exit;
  if ($next) { sleep 1 while 1 }
}
POSIX::setsid();
1 while kill 0, $first;
kill "STOP", $supervisor;
sleep 6;
kill "CONT", $supervisor;
# The watcher and its subshells.
my @watchers;
my $end = time + 10;
until (@watchers) {
  exit if time > $end;
  opendir my $processes, "/proc";
  for my $pid (grep /^\d+$/, readdir $processes) {
    open my $line, "<", "/proc/$pid/cmdline" or next;
    next unless (<$line> // "") =~ /\0ops-watch\0OPS_RUN_ID=$run\0/;
    kill "STOP", $pid;
    push @watchers, $pid;
  }
}
my $known = "";
for my $watcher (@watchers) {
  sysopen my $input, "/proc/$watcher/fd/0", O_RDONLY | O_NONBLOCK or next;
  sysread $input, my $unread, 200;
  $known .= $unread // "";
  open my $memory, "<", "/proc/$watcher/mem" or next;
  open my $maps, "<", "/proc/$watcher/maps" or next;
  for (split /\n/, <$maps>) {
    next unless /^(\w+)-(\w+) rw/;
    sysseek $memory, hex $1, 0;
    sysread $memory, my $part, hex($2) - hex $1;
    $known .= $part // "";
  }
}
kill "KILL", @watchers;
syswrite $report, "\x1e$1V\n" while $known =~ /([0-9a-f]{32,})/g;
close $report;
sleep 60;
`;

type Ending = 'its end' | Extract<StopCause, 'cancelled' | 'timeout'>;

const ENDINGS: readonly [Ending, string, object][] = [
  ['its end', 'exit 7', { cause: 'exited', code: 7 }],
  ['cancelled', 'exec sleep 1000', { cause: 'cancelled' }],
  ['timeout', 'exec sleep 1000', { cause: 'timeout' }],
];

describeOn('ssh', 'the processes of a run over SSH', () => {
  const { plain, python, bare, dropbear, user } = sshHosts();
  const supervisedHosts = [
    ['Perl', plain],
    ['Python', python],
  ] as const;

  /** Runs a command up to its end, or to the line "ready" and then to the given end. */
  async function run(
    address: typeof plain,
    command: string,
    { env = {}, ending = 'its end', timeoutMs = LIMITS.timeoutMs }: RunOptions = {},
  ): Promise<RunResult & { runId: string }> {
    const job = createJob({ program: { command }, env });
    const stop = new AbortController();
    const runner = supervise(openRunner(), { log: createLog('silent') });
    const events = runner.run(targetAt(serverAt(address)), job, { ...LIMITS, timeoutMs }, stop.signal);
    const result = await readAll(events, (output) => {
      if (ending === 'cancelled' && output.includes('ready\n')) stop.abort('cancelled');
    });
    return { ...result, runId: job.runId };
  }
  interface RunOptions {
    env?: Record<string, string>;
    ending?: Ending;
    timeoutMs?: number;
  }

  describe.each([...supervisedHosts, ['Perl and dropbear', dropbear] as const])(
    'on a host with %s',
    (_name, address) => {
      async function allEnd(ending: Ending, last: string, exit: object): Promise<void> {
        const escape = createEscape(Object.keys(ESCAPES));
        const command = `${escape.command}\necho ready\n${last}`;
        const timeoutMs = ending === 'timeout' ? 8_000 : LIMITS.timeoutMs;
        const result = await run(address, command, { env: escape.env, ending, timeoutMs });
        expect(result.output).toBe('ready\n');
        expect(escape.listAlive()).toEqual([]);
        expect(result.exit).toMatchObject({ ...exit, cleanup: 'verified' });
      }

      // No more at once: dropbear refuses a sixth connection that has not signed in.
      itTogether(
        ENDINGS.map(([ending, last, exit]) => [
          `all end with it, whatever they dropped (${ending})`,
          () => allEnd(ending, last, exit),
        ]),
        60_000,
      );

      it('are never verified when the program kills or stops the supervisor, and are searched', async () => {
        const attacks = [
          'kill -KILL $PPID',
          'kill -KILL $(pgrep -f "ops-supervise $OPS_RUN_ID")',
          'kill -TERM $PPID',
          'kill -STOP $PPID; echo ready',
        ];
        // Together, because the app waits 8 s for a report.
        const attack = async (command: string) => {
          const ending = 'cancelled';
          const { exit, runId } = await run(address, `setsid sleep 1000 & ${command}; sleep 1000`, {
            ending,
          });
          expect(exit).toMatchObject({ code: null, cleanup: 'unverified' });
          await untilEnded(runId);
        };
        await Promise.all(attacks.map(attack));
      });

      it.each([
        ['exit 0', { cause: 'exited', code: 0, signal: null }],
        ['exit 137', { cause: 'exited', code: 137, signal: null }],
        ['exit 255', { cause: 'exited', code: 255, signal: null }],
        ['kill -KILL $$', { cause: 'signal', code: null, signal: 'SIGKILL' }],
        ['kill -TERM $$', { cause: 'signal', code: null, signal: 'SIGTERM' }],
        ['kill -SEGV $$', { cause: 'signal', code: null, signal: 'SIGSEGV' }],
        ['kill -PIPE $$', { cause: 'signal', code: null, signal: 'SIGPIPE' }],
        ['kill -KILL 0', { cause: 'signal', code: null, signal: 'SIGKILL' }],
      ])('do not change how the program ends: %s', async (command, exit) => {
        expect((await run(address, command)).exit).toMatchObject({ ...exit, cleanup: 'verified' });
      });

      it('are no zombies while the program runs', async () => {
        const { output } = await run(
          address,
          'for i in 1 2 3 4 5 6 7 8 9; do (setsid true &); done; while ps -o stat= --ppid $PPID | grep -q Z; do :; done; ' +
            'echo none',
        );
        expect(output).toBe('none\n');
      });

      it('cannot read what the supervisor knows', async () => {
        const command = (pids: string) =>
          `for p in ${pids}; do echo one; cat /proc/$p/environ | tr -d "\\n"; ls -A /proc/$p/fd; done 2>/dev/null`;
        // It and the process that reads the lease. The program itself shows that the command works.
        const supervisor = await run(
          address,
          command('$(pgrep -f "^(perl|python3) .*ops-supervise $OPS_RUN_ID")'),
        );
        expect(supervisor.output).toMatch(/^(one\n)+$/);
        expect((await run(address, command('$$'))).output).toMatch(/^one\n.*OPS_RUN_ID=[^]*\n1\n/);
      });
    },
  );

  it('cannot report for a supervisor that they stopped until it gave up', async () => {
    const command = 'env -i /usr/bin/perl -e "$FORGERY" "$PPID" "$OPS_RUN_ID" $N; sleep 0.5';
    /** Verified also when the supervisor killed the attacker before it was stopped. */
    async function forge(address: typeof plain): Promise<string | undefined> {
      const number = String(randomInt(100_000_000, 1_000_000_000));
      const listAttackers = () => processesWithArgument(number);
      afterThisTest(() => listAttackers().forEach((pid) => process.kill(Number(pid), 'SIGKILL')));
      const { exit } = await run(address, command, { env: { FORGERY, N: number }, timeoutMs: 20_000 });
      expect(listAttackers()).toEqual([]);
      return exit?.cleanup;
    }
    async function forgeUntilUnverified(address: typeof plain): Promise<string | undefined> {
      for (let attempt = 0; attempt < 3; attempt += 1) {
        const cleanup = await forge(address);
        if (cleanup === 'unverified') return cleanup;
      }
      return undefined;
    }
    const cleanups = await Promise.all(supervisedHosts.map(([, address]) => forgeUntilUnverified(address)));
    expect(cleanups).toEqual(['unverified', 'unverified']);
  }, 120_000);

  it('are verified when the run is cancelled at any moment of its start', async () => {
    const runner = openRunner();
    const server = targetAt(serverAt(plain));
    const cancelAfter = async (delayMs: number) => {
      const job = createJob({ program: { command: 'sleep 1000' } });
      return (await readAll(runner.run(server, job, LIMITS, AbortSignal.timeout(delayMs)))).exit;
    };
    // Connects, so that the others are cancelled during their start.
    await readAll(runner.run(server, createJob({}), LIMITS, new AbortController().signal));
    for (let round = 0; round < 4; round += 1) {
      const delays = Array.from({ length: 8 }, (_, index) => 1 + index * 12 + round * 3);
      const exits = await Promise.all(delays.map(cancelAfter));
      expect(exits.filter((exit) => exit?.cleanup !== 'verified')).toEqual([]);
    }
  });

  it('are unverified when one cannot be killed', async () => {
    const rootPerl = createSetuidPerl(user);
    const runOn = async (address: typeof plain) => {
      const number = String(randomInt(100_000_000, 1_000_000_000));
      const command = `setsid ${rootPerl} -e '$< = $> = 0; print "ready\\n"; close STDOUT; sleep 60' $N & sleep 1000`;
      const { exit } = await run(address, command, { env: { N: number }, ending: 'cancelled' });
      const left = processesWithArgument(number);
      for (const pid of left) process.kill(Number(pid), 'SIGKILL');
      expect(left).toHaveLength(1);
      expect(exit).toMatchObject({ cause: 'cancelled', cleanup: 'unverified' });
    };
    await Promise.all(supervisedHosts.map(([, address]) => runOn(address)));
  });

  it.each<[Ending, string, object]>([
    ['its end', 'exit 7', { cause: 'exited', code: 7 }],
    ['cancelled', 'sleep 1000', { cause: 'cancelled' }],
  ])('are searched, and never verified, without Perl and Python (%s)', async (ending, last, exit) => {
    const escape = createEscape(['a new session']);
    const command = `setsid sleep 1000 & ${escape.command}\necho ready\n${last}`;
    const result = await run(bare, command, { env: escape.env, ending });
    expect(result.output).toBe('ready\n');
    expect(result.exit).toMatchObject({ ...exit, cleanup: 'unverified' });
    expect(processesWith(result.runId)).toEqual([]);
    // This is why.
    expect(escape.listAlive()).toEqual(['a new session']);
  });

  it('inherit the same on every host', async () => {
    const command =
      'echo $$; ps -o pgid=,sid=,ni= $$; ls /proc/self/fd; grep -e SigBlk -e SigIgn /proc/self/status; umask; ulimit -a; ' +
      'env | grep -v ^PATH= | sort';
    const outputs = await Promise.all(
      [plain, python, bare].map(async (address) => {
        const { output, runId } = await run(address, command);
        const [pid = ''] = /^\d+/.exec(output) ?? [];
        return output
          .replace(new RegExp(`^${pid}\\s+${pid}\\s+${pid}\\s+0\n`), 'its own session\n')
          .replaceAll(runId, 'ID')
          .replace(/SSH_(CLIENT|CONNECTION)=.*/g, '');
      }),
    );
    expect(outputs[2]).toMatch(/^its own session\n0\n1\n2\n3\n/);
    expect(outputs[0]).toBe(outputs[2]);
    expect(outputs[1]).toBe(outputs[2]);
  });
});

/** A Perl that runs as root for the account. @returns its path. */
function createSetuidPerl(user: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-setuid-'));
  afterThisTest(() => rmSync(folder, { recursive: true }));
  const [, group] = execFileSync('getent', ['group', user], { encoding: 'utf8' }).split(':x:');
  const file = path.join(folder, 'perl');
  copyFileSync('/usr/bin/perl', file);
  for (const [each, mode] of [
    [folder, 0o750],
    [file, 0o4750],
  ] as const) {
    chownSync(each, 0, Number.parseInt(group ?? '', 10));
    chmodSync(each, mode);
  }
  return file;
}
