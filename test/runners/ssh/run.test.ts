import { expect, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { randomInt, randomUUID } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { SshConfig, SshServer } from '../../../src/lib/ssh/config.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import type { ExitEvent, Job, Limits, RunEvent, Runner, TargetServer } from '../../../src/runners/runner.ts';
import { createSshRunner } from '../../../src/runners/ssh/index.ts';
import {
  afterThisTest,
  localDialer,
  neverAborted,
  withParsedConfig,
  serverAt,
} from '../../lib/ssh/servers.ts';
import { startScriptedServer } from '../../lib/ssh/scripted-server.ts';
import { startCutProxy, type CutProxy } from '../../support/cut-proxy.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';

const LIMITS: Limits = {
  timeoutMs: 600_000,
  maxOutputBytes: 2 ** 30,
  memoryBytes: null,
  cpus: null,
  pids: null,
  network: null,
};

function openRunner(): Runner<SshConfig> {
  const dialer = localDialer();
  const runner = createSshRunner({ connections: createSshConnections({ dialer }) });
  afterThisTest(async () => {
    await runner.close();
    await dialer.close();
  });
  return runner;
}

interface Read {
  output: string;
  phases: string;
  exit: ExitEvent | undefined;
}

async function readAll(
  events: AsyncIterable<RunEvent>,
  onOutput: (output: string) => unknown = () => undefined,
): Promise<Read> {
  const read: Read = { output: '', phases: '', exit: undefined };
  for await (const event of events) {
    if (event.type === 'exit') read.exit = event;
    else if (event.type === 'phase') read.phases += ` ${event.phase}`;
    else {
      read.output += Buffer.from(event.data).toString();
      await onOutput(read.output);
    }
  }
  return read;
}

const jobOf = (order: Partial<Job>): Job => ({
  ...{ runId: randomUUID(), program: { command: 'true' }, stdin: null, files: [], env: {}, workdir: null },
  ...order,
});

/** The processes of this machine whose environment or command line holds a text. */
function processesWith(text: string): string[] {
  return readdirSync('/proc').filter(
    (pid) =>
      /^\d+$/.test(pid) && ['environ', 'cmdline'].some((file) => read(`/proc/${pid}/${file}`).includes(text)),
  );
}

function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

/** True once an answer has come ten times in a row. */
function standingStill(): (answer: string) => boolean {
  let last = '';
  let times = 0;
  return (answer) => {
    times = answer === last ? times + 1 : 0;
    last = answer;
    return times === 10;
  };
}

/** A folder on the host that the account may write to. */
function makeWorkspace(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-workspace-'));
  execFileSync('chmod', ['777', folder]);
  afterThisTest(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

// The host is this machine, where root looks.
describeOn('ssh', 'a run over SSH', () => {
  const hosts = sshHosts();
  const targetAt = (server: SshServer): TargetServer<SshConfig> => ({
    ...(withParsedConfig(server) as TargetServer<SshConfig>),
    workspacePath: null,
  });
  const target = (own: Partial<TargetServer<SshConfig>> = {}) => ({
    ...targetAt(serverAt(hosts.plain)),
    ...own,
  });

  async function proxied(): Promise<{ proxy: CutProxy; server: TargetServer<SshConfig> }> {
    const proxy = await startCutProxy(`http://${hosts.plain.host}:${hosts.plain.port}`);
    afterThisTest(() => proxy.close());
    const { hostname, port } = new URL(proxy.url);
    return { proxy, server: targetAt(serverAt({ ...hosts.plain, host: hostname, port: Number(port) })) };
  }

  it('is ended by the host itself when its connection is gone, with all that it stored', async () => {
    const { proxy, server } = await proxied();
    const job = jobOf({ program: { language: 'bash', code: 'echo ready; setsid sleep 1000 & sleep 1000' } });
    const result = await readAll(openRunner().run(server, job, LIMITS, neverAborted()), () => proxy.cut());
    expect(result.exit).toMatchObject({ cause: 'lost', code: null, signal: null });
    await until(
      () => processesWith(job.runId),
      (left) => left.length === 0,
    );
    expect(existsSync(`/tmp/ops-run-${job.runId}`)).toBe(false);
  });

  it('is ended by the host itself when its connection falls silent without an end', async () => {
    const { proxy, server } = await proxied();
    const job = jobOf({ program: { command: 'echo ready; setsid sleep 1000 & sleep 1000' } });
    const leaving = new AbortController();
    const reading = readAll(openRunner().run(server, job, LIMITS, leaving.signal), () => proxy.silence());
    await until(
      () => processesWith(job.runId),
      (found) => found.length > 0,
    );
    // 15 s without a heartbeat.
    await until(
      () => processesWith(job.runId),
      (left) => left.length === 0,
      40_000,
    );
    proxy.cut();
    expect((await reading).exit).toMatchObject({ cause: 'lost', code: null });
  }, 60_000);

  it('lives as long as its heartbeats come, however quiet it is', async () => {
    const job = jobOf({ program: { command: 'sleep 17; echo over' } });
    const result = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(result).toMatchObject({ output: 'over\n', exit: { cause: 'exited', code: 0 } });
  }, 60_000);

  it('finds children that dropped its environment, its session and its parent', async () => {
    // Found by these alone: nothing else of the run is left in such a process.
    const times = Array.from({ length: 4 }, () => String(randomInt(1_000_000, 9_000_000)));
    const command = [
      `(env -i setsid sleep ${times[0] ?? ''} &)`,
      `(env -i setsid sleep ${times[1] ?? ''} >/dev/null 2>&1 </dev/null &)`,
      `(cd / && env -i setsid sleep ${times[2] ?? ''} 2>/dev/null &)`,
      `(cd / && env -i setsid sleep ${times[3] ?? ''} >/dev/null &)`,
      'echo started',
    ].join('\n');
    const result = await readAll(
      openRunner().run(target(), jobOf({ program: { command } }), LIMITS, neverAborted()),
    );
    expect(result).toMatchObject({ output: 'started\n', exit: { code: 0, cleanup: 'verified' } });
    expect(times.flatMap((time) => processesWith(`sleep\0${time}\0`))).toEqual([]);
  });

  it('kills a crowd that multiplies while it is killed', async () => {
    const stop = new AbortController();
    const command =
      'f() { setsid sh -c "sleep 0.05; sleep 1000" & }; echo ready; while :; do f; f; sleep 0.02; done';
    const job = jobOf({ program: { command } });
    const result = await readAll(openRunner().run(target(), job, LIMITS, stop.signal), () =>
      stop.abort('cancelled'),
    );
    expect(result.exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    expect(processesWith(job.runId)).toEqual([]);
  });

  it('that writes to both streams is held back by a reader who does not read, and loses nothing', async () => {
    const command =
      'i=0; while [ $i -lt 300 ]; do head -c 100000 /dev/zero; echo e >&2; i=$((i+1)); done; exit 5';
    const job = jobOf({ program: { command } });
    const events = openRunner().run(target(), job, LIMITS, neverAborted());
    let bytes = 0;
    let exit: ExitEvent | undefined;
    for await (const event of events) {
      // Held back, the shell waits for a `head`, which waits for the pipe: there are no new processes.
      if (event.type === 'output' && bytes === 0)
        await until(() => processesWith(job.runId).join(), standingStill(), 30_000);
      if (event.type === 'output') bytes += event.data.length;
      if (event.type === 'exit') exit = event;
    }
    expect(exit).toMatchObject({ cause: 'exited', code: 5, cleanup: 'verified' });
    expect(bytes).toBe(300 * 100_002);
  }, 60_000);

  it('that kills its own watcher is looked for all the same', async () => {
    const command = 'pkill -KILL -f "ops-watch $OPS_RUN_ID"; setsid sleep 1000 & exit 4';
    const job = jobOf({ program: { command } });
    const result = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(result.exit).toMatchObject({ cause: 'exited', code: 4, cleanup: 'verified' });
    expect(processesWith(job.runId)).toEqual([]);
  }, 60_000);

  it('says on the wire nothing that a list of processes would show', async () => {
    const secret = `of-this-run-${randomUUID()}`;
    const code = `# ${secret}\nps axww -o args; cat >/dev/null`;
    const job = jobOf({
      ...{ program: { language: 'bash', code }, env: { A: secret }, stdin: Buffer.from(secret) },
      files: [{ path: 'file', content: Buffer.from(secret) }],
    });
    const result = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(result.output).toContain('ops-watch');
    expect(result.output).not.toContain(secret);
  });

  it('stores what belongs to it where nobody else reads it', async () => {
    const folder = makeWorkspace();
    const files = [{ path: 'new/deep/file', content: Buffer.from('x') }];
    const command =
      'stat -c "%a %n" . new new/deep new/deep/file "/tmp/ops-run-$OPS_RUN_ID" "/tmp/ops-run-$OPS_RUN_ID/stdin"; umask';
    const job = jobOf({ program: { command }, files, stdin: Buffer.from('x'), workdir: folder });
    const { output } = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(output.replaceAll(job.runId, 'ID')).toBe(
      '777 .\n700 new\n700 new/deep\n600 new/deep/file\n700 /tmp/ops-run-ID\n600 /tmp/ops-run-ID/stdin\n0022\n',
    );
    expect(readdirSync(folder)).toEqual([]);
  });

  it('does not write over a file that is there, nor takes it away', async () => {
    const folder = makeWorkspace();
    mkdirSync(path.join(folder, 'dir'));
    writeFileSync(path.join(folder, 'dir', 'mine'), 'mine');
    // The account could: that it does not is the launcher's doing.
    execFileSync('chmod', ['-R', '777', folder]);
    const files = ['one', 'dir/mine'].map((name) => ({ path: name, content: Buffer.from('theirs') }));
    const job = jobOf({ program: { command: 'echo ran' }, files, workdir: folder });
    const result = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(result).toMatchObject({ output: '', phases: ' preparing' });
    expect(result.exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(result.exit?.message).toContain('may be there already');
    expect(readFileSync(path.join(folder, 'dir', 'mine'), 'utf8')).toBe('mine');
    expect(readdirSync(folder)).toEqual(['dir']);
  });

  it('leaves what the program itself wrote into a workspace', async () => {
    const folder = makeWorkspace();
    const files = [{ path: 'given/input', content: Buffer.from('x') }];
    const job = jobOf({ program: { command: 'cp given/input given/result' }, files });
    await readAll(openRunner().run(target({ workspacePath: folder }), job, LIMITS, neverAborted()));
    expect(readdirSync(path.join(folder, 'given'))).toEqual(['result']);
  });

  it('takes away a folder that the program has locked', async () => {
    const job = jobOf({ program: { command: 'mkdir -p a/b && touch a/b/c && chmod 0 a/b a .' } });
    const { exit } = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(exit).toMatchObject({ code: 0, cleanup: 'verified' });
    expect(existsSync(`/tmp/ops-run-${job.runId}`)).toBe(false);
  });

  it('gives the program variables whose names the launcher has too', async () => {
    const env = {
      id: '1',
      own: '2',
      mark: '3',
      top: '4',
      kind: '5',
      text: '6',
      source: '8',
      line: '9',
    };
    const command = 'printf "%s" "$id$own$mark$top$kind$text$source$line"';
    const { output, exit } = await readAll(
      openRunner().run(target(), jobOf({ program: { command }, env }), LIMITS, neverAborted()),
    );
    expect(output).toBe('12345689');
    expect(exit).toMatchObject({ code: 0, cleanup: 'verified' });
  });

  it.each([
    ['a variable of the shell’s own', { env: { UID: '0' } }, /UID/],
    ['a variable whose name is code', { env: { 'A=$(id)': '' } }, /name of a variable/],
    ['a file outside', { files: [{ path: '../out', content: Buffer.from('x') }] }, /relative/],
    ['an absolute file', { files: [{ path: '/etc/x', content: Buffer.from('x') }] }, /relative/],
    ['a relative folder', { workdir: 'somewhere' }, /absolute/],
    ['a folder of two lines', { workdir: '/tmp\n/etc' }, /control characters/],
    ['an id that is code', { runId: '$(id)' }, /id of the run/],
  ])('with %s is refused before anything is sent', async (_name, order, message) => {
    const result = await readAll(openRunner().run(target(), jobOf(order), LIMITS, neverAborted()));
    expect(result.exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(result.exit?.message).toMatch(message);
  });

  it('that is cancelled before its server answered is over at once', async () => {
    const server = await startScriptedServer({ authenticate: () => stop.abort('cancelled') });
    const stop = new AbortController();
    const server2 = targetAt(serverAt(server));
    const { exit } = await readAll(openRunner().run(server2, jobOf({}), LIMITS, stop.signal));
    expect(exit).toMatchObject({ cause: 'cancelled', code: null, cleanup: 'verified' });
  });

  it('at a server that accepts it and does nothing ends when it is cancelled, and is not called verified', async () => {
    const stop = new AbortController();
    const server = await startScriptedServer({
      exec: (channel) => channel.once('data', () => stop.abort('cancelled')),
    });
    const idle = targetAt(serverAt(server));
    const { exit, phases } = await readAll(openRunner().run(idle, jobOf({}), LIMITS, stop.signal));
    expect(phases).toBe(' preparing');
    expect(exit).toMatchObject({ cause: 'cancelled', code: null, cleanup: 'unverified' });
  }, 60_000);

  it('at a server that claims an end without a start is no success', async () => {
    const server = await startScriptedServer({
      exec: (channel) => {
        channel.exit(0);
        channel.end();
      },
    });
    const liar = targetAt(serverAt(server));
    const { exit } = await readAll(openRunner().run(liar, jobOf({}), LIMITS, neverAborted()));
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'unverified' });
  }, 60_000);
});
