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
import type { SshConfig } from '../../../src/lib/ssh/config.ts';
import type { ExitEvent, TargetServer } from '../../../src/runners/runner.ts';
import { afterThisTest, neverAborted, serverAt } from '../../lib/ssh/servers.ts';
import { startScriptedServer } from '../../lib/ssh/scripted-server.ts';
import { startCutProxy, type CutProxy } from '../../support/cut-proxy.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { itTogether } from '../../support/it-together.ts';
import { until } from '../../support/until.ts';
import {
  createJob,
  createReadyFrame,
  LIMITS,
  openRunner,
  processesWith,
  readAll,
  readMarker,
  targetAt,
  untilEnded,
  untilStarted,
} from './ssh-runs.ts';

/** True once the same value was passed ten more times in a row. */
function createStabilityCheck(): (value: string) => boolean {
  let last = '';
  let times = 0;
  return (value) => {
    times = value === last ? times + 1 : 0;
    last = value;
    return times === 10;
  };
}

/** Creates a folder on the host that the account may write to. */
function createWorkspace(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-workspace-'));
  execFileSync('chmod', ['777', folder]);
  afterThisTest(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

// The host is this machine, so that the tests can inspect it as root.
describeOn('ssh', 'a run over SSH', () => {
  const hosts = sshHosts();
  const target = (overrides: Partial<TargetServer<SshConfig>> = {}) => ({
    ...targetAt(serverAt(hosts.plain)),
    ...overrides,
  });

  async function proxied(): Promise<{ proxy: CutProxy; server: TargetServer<SshConfig> }> {
    const proxy = await startCutProxy(`http://${hosts.plain.host}:${hosts.plain.port}`);
    afterThisTest(() => proxy.close());
    const { hostname, port } = new URL(proxy.url);
    return { proxy, server: targetAt(serverAt({ ...hosts.plain, host: hostname, port: Number(port) })) };
  }

  it('is killed by the host when its connection is lost, and its files are removed', async () => {
    const { proxy, server } = await proxied();
    const job = createJob({
      program: { language: 'bash', code: 'echo ready; setsid sleep 1000 & sleep 1000' },
    });
    const result = await readAll(openRunner().run(server, job, LIMITS, neverAborted()), () => proxy.cut());
    expect(result.exit).toMatchObject({ cause: 'lost', code: null, signal: null });
    await untilEnded(job.runId);
    expect(existsSync(`/tmp/ops-run-${job.runId}`)).toBe(false);
  });

  itTogether(
    [
      [
        'is killed by the host when its connection stalls without closing',
        async () => {
          const { proxy, server } = await proxied();
          const job = createJob({ program: { command: 'echo ready; setsid sleep 1000 & sleep 1000' } });
          const leaving = new AbortController();
          const reading = readAll(openRunner().run(server, job, LIMITS, leaving.signal), () =>
            proxy.silence(),
          );
          await untilStarted(job.runId);
          // 15 s without a heartbeat.
          await untilEnded(job.runId, 40_000);
          proxy.cut();
          expect((await reading).exit).toMatchObject({ cause: 'lost', code: null });
        },
      ],
      [
        'is lost, with the cause, if the host ended it during a silence of more than 15 s',
        async () => {
          const { proxy, server } = await proxied();
          const job = createJob({ program: { command: 'echo ready; setsid sleep 1000 & sleep 1000' } });
          const reading = readAll(openRunner().run(server, job, LIMITS, neverAborted()), () => proxy.hold());
          await untilStarted(job.runId);
          await untilEnded(job.runId, 40_000);
          proxy.release();
          const { exit } = await reading;
          expect(exit).toMatchObject({ cause: 'lost', code: null, signal: null, cleanup: 'verified' });
          expect(exit?.message).toContain('no contact to the app for 15 s');
        },
      ],
      [
        'continues while heartbeats arrive, even without output',
        async () => {
          const job = createJob({ program: { command: 'sleep 17; echo over' } });
          const result = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
          expect(result).toMatchObject({ output: 'over\n', exit: { cause: 'exited', code: 0 } });
        },
      ],
    ],
    60_000,
  );

  it('finds children that dropped its environment, its session and its parent', async () => {
    // The arguments identify the processes: they have nothing else of the run.
    const times = Array.from({ length: 4 }, () => String(randomInt(1_000_000, 9_000_000)));
    const command = [
      `(env -i setsid sleep ${times[0] ?? ''} &)`,
      `(env -i setsid sleep ${times[1] ?? ''} >/dev/null 2>&1 </dev/null &)`,
      `(cd / && env -i setsid sleep ${times[2] ?? ''} 2>/dev/null &)`,
      `(cd / && env -i setsid sleep ${times[3] ?? ''} >/dev/null &)`,
      'echo started',
    ].join('\n');
    const result = await readAll(
      openRunner().run(target(), createJob({ program: { command } }), LIMITS, neverAborted()),
    );
    expect(result).toMatchObject({ output: 'started\n', exit: { code: 0, cleanup: 'verified' } });
    expect(times.flatMap((time) => processesWith(`sleep\0${time}\0`))).toEqual([]);
  });

  it('passes on what Python prints while it runs', async () => {
    const stop = new AbortController();
    const code = 'import time\nprint("first")\ntime.sleep(1000)';
    const job = createJob({ program: { language: 'python', code } });
    const { output } = await readAll(openRunner().run(target(), job, LIMITS, stop.signal), () =>
      stop.abort('cancelled'),
    );
    expect(output).toBe('first\n');
  });

  it('kills processes that keep starting others', async () => {
    const stop = new AbortController();
    const command =
      'f() { setsid sh -c "sleep 0.05; sleep 1000" & }; echo ready; while :; do f; f; sleep 0.02; done';
    const job = createJob({ program: { command } });
    const result = await readAll(openRunner().run(target(), job, LIMITS, stop.signal), () =>
      stop.abort('cancelled'),
    );
    expect(result.exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    expect(processesWith(job.runId)).toEqual([]);
  });

  it('that writes to both streams is paused while its output is not read, and loses nothing', async () => {
    const command =
      'i=0; while [ $i -lt 300 ]; do head -c 100000 /dev/zero; echo e >&2; i=$((i+1)); done; exit 5';
    const job = createJob({ program: { command } });
    const events = openRunner().run(target(), job, LIMITS, neverAborted());
    let bytes = 0;
    let exit: ExitEvent | undefined;
    for await (const event of events) {
      // While paused, the shell waits for a `head`, which waits for the pipe: no new processes start.
      if (event.type === 'output' && bytes === 0)
        await until(() => processesWith(job.runId).join(), createStabilityCheck(), 30_000);
      if (event.type === 'output') bytes += event.data.length;
      if (event.type === 'exit') exit = event;
    }
    expect(exit).toMatchObject({ cause: 'exited', code: 5, cleanup: 'verified' });
    expect(bytes).toBe(300 * 100_002);
  }, 60_000);

  it('does not appear with its data in a process list', async () => {
    const secret = `of-this-run-${randomUUID()}`;
    const code = `# ${secret}\nps axww -o args; cat >/dev/null`;
    const job = createJob({
      ...{ program: { language: 'bash', code }, env: { A: secret }, stdin: Buffer.from(secret) },
      files: [{ path: 'file', content: Buffer.from(secret) }],
    });
    const result = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(result.output).toContain(`ops-supervise ${job.runId}`);
    expect(result.output).not.toContain(secret);
  });

  it('stores its files unreadable for other accounts', async () => {
    const folder = createWorkspace();
    const files = [{ path: 'new/deep/file', content: Buffer.from('x') }];
    const command =
      'stat -c "%a %n" . new new/deep new/deep/file "/tmp/ops-run-$OPS_RUN_ID" "/tmp/ops-run-$OPS_RUN_ID/stdin"; umask';
    const job = createJob({ program: { command }, files, stdin: Buffer.from('x'), workdir: folder });
    const { output } = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(output.replaceAll(job.runId, 'ID')).toBe(
      '777 .\n700 new\n700 new/deep\n600 new/deep/file\n700 /tmp/ops-run-ID\n600 /tmp/ops-run-ID/stdin\n0022\n',
    );
    expect(readdirSync(folder)).toEqual([]);
  });

  it('neither overwrites nor removes an existing file', async () => {
    const folder = createWorkspace();
    mkdirSync(path.join(folder, 'dir'));
    writeFileSync(path.join(folder, 'dir', 'mine'), 'mine');
    // The account has the permission to, so that only the launcher prevents it.
    execFileSync('chmod', ['-R', '777', folder]);
    const files = ['one', 'dir/mine'].map((name) => ({ path: name, content: Buffer.from('theirs') }));
    const job = createJob({ program: { command: 'echo ran' }, files, workdir: folder });
    const result = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(result).toMatchObject({ output: '', phases: ' preparing' });
    expect(result.exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(result.exit?.message).toContain('may exist already');
    expect(readFileSync(path.join(folder, 'dir', 'mine'), 'utf8')).toBe('mine');
    expect(readdirSync(folder)).toEqual(['dir']);
  });

  it('keeps what the program wrote into a workspace', async () => {
    const folder = createWorkspace();
    const files = [{ path: 'given/input', content: Buffer.from('x') }];
    const job = createJob({ program: { command: 'cp given/input given/result' }, files });
    await readAll(openRunner().run(target({ workspacePath: folder }), job, LIMITS, neverAborted()));
    expect(readdirSync(path.join(folder, 'given'))).toEqual(['result']);
  });

  it.each([
    ['Perl', hosts.plain],
    ['Python', hosts.python],
  ])('is unverified if it removed the list of its files: %s', async (_name, address) => {
    const folder = createWorkspace();
    const files = [{ path: 'given', content: Buffer.from('x') }];
    const job = createJob({
      program: { command: 'rm -rf "/tmp/ops-run-$OPS_RUN_ID"' },
      files,
      workdir: folder,
    });
    const server = targetAt(serverAt(address));
    const { exit } = await readAll(openRunner().run(server, job, LIMITS, neverAborted()));
    expect(readdirSync(folder)).toEqual(['given']);
    expect(exit).toMatchObject({ code: 0, cleanup: 'unverified' });
  });

  it('removes a folder whose permissions the program removed', async () => {
    const job = createJob({ program: { command: 'mkdir -p a/b && touch a/b/c && chmod 0 a/b a .' } });
    const { exit } = await readAll(openRunner().run(target(), job, LIMITS, neverAborted()));
    expect(exit).toMatchObject({ code: 0, cleanup: 'verified' });
    expect(existsSync(`/tmp/ops-run-${job.runId}`)).toBe(false);
  });

  it('passes variables with the names of the launcher’s variables', async () => {
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
      openRunner().run(target(), createJob({ program: { command }, env }), LIMITS, neverAborted()),
    );
    expect(output).toBe('12345689');
    expect(exit).toMatchObject({ code: 0, cleanup: 'verified' });
  });

  it.each([
    ['a variable reserved by the shell', { env: { UID: '0' } }, /UID/],
    ['a variable with code as its name', { env: { 'A=$(id)': '' } }, /name of a variable/],
    ['a file outside the folder', { files: [{ path: '../out', content: Buffer.from('x') }] }, /relative/],
    ['a file with an absolute path', { files: [{ path: '/etc/x', content: Buffer.from('x') }] }, /relative/],
    ['a relative folder', { workdir: 'somewhere' }, /absolute/],
    ['a folder with a line break', { workdir: '/tmp\n/etc' }, /control characters/],
    ['an id with code', { runId: '$(id)' }, /id of the run/],
  ])('with %s is refused before anything is sent', async (_name, overrides, message) => {
    const result = await readAll(openRunner().run(target(), createJob(overrides), LIMITS, neverAborted()));
    expect(result.exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(result.exit?.message).toMatch(message);
  });

  it('that is cancelled before its server responds ends at once', async () => {
    const server = await startScriptedServer({ authenticate: () => stop.abort('cancelled') });
    const stop = new AbortController();
    const silent = targetAt(serverAt(server));
    const { exit } = await readAll(openRunner().run(silent, createJob({}), LIMITS, stop.signal));
    expect(exit).toMatchObject({ cause: 'cancelled', code: null, cleanup: 'verified' });
  });

  it('at a server that does nothing ends when it is cancelled, with cleanup unverified', async () => {
    const stop = new AbortController();
    const server = await startScriptedServer({
      exec: (channel, command) => {
        channel.write(createReadyFrame(command));
        channel.once('data', () => stop.abort('cancelled'));
      },
    });
    const idle = targetAt(serverAt(server));
    const { exit, phases } = await readAll(openRunner().run(idle, createJob({}), LIMITS, stop.signal));
    expect(phases).toBe(' preparing');
    expect(exit).toMatchObject({ cause: 'cancelled', code: null, cleanup: 'unverified' });
  }, 60_000);

  it('at a server whose launcher does not start is sent nothing of the job', async () => {
    let input = '';
    let marker = '';
    const server = await startScriptedServer({
      exec: (channel, command) => {
        marker = readMarker(command);
        // What an account's shell prints, also the command itself, is not the launcher's report.
        channel.write(`${command}\n${marker}R\n`);
        channel.on('data', (chunk: Buffer) => (input += chunk.toString()));
        channel.once('end', () => channel.close());
      },
    });
    const job = createJob({ program: { command: 'secret-command' }, stdin: Buffer.from('secret-input') });
    const { exit } = await readAll(openRunner().run(targetAt(serverAt(server)), job, LIMITS, neverAborted()));
    expect(input).toBe(`echo ${marker}\n`);
    expect(exit).toMatchObject({ cause: 'infrastructure', cleanup: 'verified' });
    expect(exit?.message).toContain('nothing of the run was sent');
  }, 60_000);

  it('at a server that reports an exit without a start is an infrastructure error', async () => {
    const server = await startScriptedServer({
      exec: (channel) => {
        channel.exit(0);
        channel.end();
      },
    });
    const misreporting = targetAt(serverAt(server));
    const { exit } = await readAll(openRunner().run(misreporting, createJob({}), LIMITS, neverAborted()));
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
  }, 60_000);
});
