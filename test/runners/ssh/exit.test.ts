import { describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import type { ServerChannel } from 'ssh2';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import type { ExitEvent, Job, TargetServer } from '../../../src/runners/runner.ts';
import { createSshRunner } from '../../../src/runners/ssh/index.ts';
import { createReadyFrame, readSecrets } from './ssh-runs.ts';
import { startScriptedServer } from '../../lib/ssh/scripted-server.ts';
import { afterThisTest, localDialer, neverAborted } from '../../lib/ssh/servers.ts';

/** The signals that ssh2 lets a server report; a test adds others. */
const { SIGNALS } = createRequire(import.meta.url)('ssh2/lib/protocol/constants.js') as {
  SIGNALS: Record<string, number>;
};

const LIMITS = {
  ...{ timeoutMs: 60_000, maxOutputBytes: 1_000_000 },
  ...{ memoryBytes: null, cpus: null, pids: null, network: null },
};

/** The exit of a run on a server that acts as the launcher, sends the frames, and then reports `end`. */
async function exitAt(
  end: (channel: ServerChannel) => void,
  frames: readonly string[] = ['N', 'V'],
  changes: Record<string, unknown> = {},
): Promise<ExitEvent | undefined> {
  const scriptedServer = await startScriptedServer({
    exec: (channel, command) => {
      if (command.includes(' OPS_RUN_ID=')) {
        // The cleanup.
        channel.exit(0);
        channel.end();
        return;
      }
      channel.write(createReadyFrame(command));
      channel.once('data', (data: Buffer) => {
        const { marker, supervisorProof, watcherProof } = readSecrets(data.toString('latin1'));
        const proof = frames[0] === 'S' ? supervisorProof : watcherProof;
        const [started = ''] = frames;
        channel.write(`\u001e${marker}${started}\n`);
        const toText = (frame: string) => `\u001e${marker}${/^[VU]L?$/.test(frame) ? proof : ''}${frame}\n`;
        channel.stderr.write(frames.map(toText).join(''));
        end(channel);
        channel.end();
      });
    },
  });
  const dialer = localDialer();
  const runner = createSshRunner({ connections: createSshConnections({ dialer }) });
  afterThisTest(async () => {
    await runner.close();
    await dialer.close();
  });
  const { host, port, hostKey } = scriptedServer;
  const account = { username: 'u', auth_method: 'password', password: 'p' };
  const config = runner.config.parse({ host, port, ...account, ...changes });
  const server = {
    serverId: 's',
    owner: 'user:a' as const,
    version: 1,
    workspacePath: null,
    jumpServers: new Map(),
  };
  const target: TargetServer<typeof config> = { ...server, config, hostKey };
  const program = { command: 'true' };
  const job: Job = { runId: randomUUID(), program, stdin: null, files: [], env: {}, workdir: null };
  for await (const event of runner.run(target, job, LIMITS, neverAborted()))
    if (event.type === 'exit') return event;
  return undefined;
}

describe('an exit status that a server reports', () => {
  it.each([256, 2 ** 31, 2 ** 32 - 1])('of %d is not accepted', async (status) => {
    const exit = await exitAt((channel) => channel.exit(status));
    expect(exit).toMatchObject({ cause: 'lost', code: null, signal: null });
    expect(exit?.message).toMatch(/invalid exit status/);
  });

  it('is accepted up to 255', async () => {
    expect(await exitAt((channel) => channel.exit(255))).toMatchObject({ cause: 'exited', code: 255 });
  });

  it.each(['A\0B', '<B>BOLD</B>', 'X'.repeat(10_000), 'FANCY'])(
    'with an unknown signal name is passed on without the name (%#)',
    async (name) => {
      SIGNALS[name] = 1;
      afterThisTest(() => Reflect.deleteProperty(SIGNALS, name));
      expect(await exitAt((channel) => channel.exit(name))).toMatchObject({
        ...{ cause: 'signal', code: null, signal: null, message: null },
      });
    },
  );

  it('with a known signal name is passed on with the name', async () => {
    expect(await exitAt((channel) => channel.exit('KILL'))).toMatchObject({
      cause: 'signal',
      signal: 'SIGKILL',
    });
  });
});

describe('a run that the host ended since it received no heartbeat', () => {
  it.each([
    [['S', 'VL'], 'verified'],
    [['S', 'UL'], 'unverified'],
    [['N', 'VL'], 'unverified'],
  ])('is lost, and says so (%j)', async (frames, cleanup) => {
    const exit = await exitAt((channel) => channel.exit('KILL'), frames);
    expect(exit).toMatchObject({ cause: 'lost', code: null, signal: null, cleanup });
    expect(exit?.message).toContain('no contact to the app for 15 s');
  });

  it('is not believed without the proof', async () => {
    const exit = await exitAt((channel) => channel.exit('KILL'), ['S', 'aVL']);
    expect(exit).toMatchObject({ cause: 'signal', signal: 'SIGKILL', cleanup: 'unverified' });
  });
});

describe('the cleanup of a run', () => {
  it.each([
    ['is verified by the report of a supervisor', ['S', 'V'], 'verified'],
    ['is unverified if the supervisor could not kill everything', ['S', 'U'], 'unverified'],
    ['is unverified without a report', ['S'], 'unverified'],
    ['is unverified if a refusal is reported after the start', ['S', 'EVfile'], 'unverified'],
    ['is unverified if a refusal is reported before the start', ['EVfile', 'S'], 'unverified'],
    ['is unverified if the report has no proof', ['S', 'aV'], 'unverified'],
    ['is unverified after a search without a supervisor', ['N', 'V'], 'unverified'],
    ['is unverified if a supervisor is claimed after the start', ['N', 'S', 'V'], 'unverified'],
  ])('%s', async (_rule, frames, cleanup) => {
    expect(await exitAt((channel) => channel.exit(0), frames)).toMatchObject({ code: 0, cleanup });
  });
});

describe('a run whose language has no interpreter', () => {
  it.each([
    ['python', {}, 'searched for python3 and python on the PATH', 'set interpreters.python of the server'],
    [
      'javascript',
      {},
      'searched for node and nodejs on the PATH',
      'set interpreters.javascript of the server',
    ],
    ['bash', {}, 'searched for bash on the PATH', 'set interpreters.bash of the server'],
    [
      'bash',
      { bash: '/opt/bash 5' },
      '/opt/bash 5, which interpreters.bash of the server names, is no file',
      '',
    ],
    ['python', { python: 'py' }, 'py, which interpreters.python of the server names, is not on the PATH', ''],
  ])('says what was searched for and how to set it: %s %j', async (language, interpreters, cause, step) => {
    const exit = await exitAt((channel) => channel.exit(1), [`EV${language}`], { interpreters });
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null });
    expect(exit?.message).toContain(cause);
    expect(exit?.message).toContain(step);
  });
});

describe('a refusal of the host before the program starts', () => {
  const PROGRAMS = ['awk', 'cat', 'dd', 'grep', 'ls', 'mkdir', 'rm', 'setsid', 'timeout'];

  it.each([
    ['tools,awk,/proc', 'needed to start and to end a run: awk, /proc. Install the programs'],
    ['folder', 'The folder for the run could not be created'],
    ['input', 'The job did not reach the server completely'],
    ['workdir', 'The working folder does not exist'],
    ['file', 'A file of the run could not be written'],
    ['another', 'ended before the program started, and gave no reason'],
  ])('is explained, and its cleanup passed on: %s', async (reason, message) => {
    for (const [state, cleanup] of [
      ['V', 'verified'],
      ['U', 'unverified'],
    ]) {
      const exit = await exitAt((channel) => channel.exit(1), [`E${state}${reason}`]);
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null, signal: null, cleanup });
      expect(exit?.message).toContain(message);
    }
  });

  it('names the programs that the scripts start, and no other words of the host', async () => {
    const missing = [...PROGRAMS, 'injected'].join(',');
    const exit = await exitAt((channel) => channel.exit(1), [`EVtools,${missing}`]);
    expect(exit?.message).toContain(`: ${PROGRAMS.join(', ')}. Install`);
    expect(exit?.message).not.toContain('injected');
  });
});
