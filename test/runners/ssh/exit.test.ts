import { describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import type { ServerChannel } from 'ssh2';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import type { ExitEvent, Job, TargetServer } from '../../../src/runners/runner.ts';
import { createSshRunner } from '../../../src/runners/ssh/index.ts';
import { startScriptedServer } from '../../lib/ssh/scripted-server.ts';
import { afterThisTest, localDialer, neverAborted } from '../../lib/ssh/servers.ts';

/** What the library lets a server say; hostile ones say more. */
const { SIGNALS } = createRequire(import.meta.url)('ssh2/lib/protocol/constants.js') as {
  SIGNALS: Record<string, number>;
};

const LIMITS = {
  ...{ timeoutMs: 60_000, maxOutputBytes: 1_000_000 },
  ...{ memoryBytes: null, cpus: null, pids: null, network: null },
};

/** How a run ends at a server that plays the launcher, and then says `end`. */
async function exitAt(end: (channel: ServerChannel) => void): Promise<ExitEvent | undefined> {
  const server = await startScriptedServer({
    exec: (channel) =>
      channel.once('data', (data: Buffer) => {
        const [mark] = data.toString('latin1').split('\n');
        channel.write(`\u001e${mark}S\n`);
        channel.stderr.write(`\u001e${mark}S\n\u001e${mark}V\n`);
        end(channel);
        channel.end();
      }),
  });
  const dialer = localDialer();
  const runner = createSshRunner({ connections: createSshConnections({ dialer }) });
  afterThisTest(async () => {
    await runner.close();
    await dialer.close();
  });
  const { host, port, hostKey } = server;
  const config = runner.config.parse({ host, port, username: 'u', auth_method: 'password', password: 'p' });
  const place = {
    serverId: 's',
    owner: 'user:a' as const,
    version: 1,
    workspacePath: null,
    jumpServers: new Map(),
  };
  const target: TargetServer<typeof config> = { ...place, config, hostKey };
  const program = { command: 'true' };
  const job: Job = { runId: randomUUID(), program, stdin: null, files: [], env: {}, workdir: null };
  for await (const event of runner.run(target, job, LIMITS, neverAborted()))
    if (event.type === 'exit') return event;
  return undefined;
}

describe('a server that lies about how a program ended', () => {
  it.each([256, 2 ** 31, 2 ** 32 - 1])('has no exit status of %d believed', async (status) => {
    const exit = await exitAt((channel) => channel.exit(status));
    expect(exit).toMatchObject({ cause: 'lost', code: null, signal: null });
    expect(exit?.message).toMatch(/no program has/);
  });

  it('is believed up to 255', async () => {
    expect(await exitAt((channel) => channel.exit(255))).toMatchObject({ cause: 'exited', code: 255 });
  });

  it.each(['A\0B', '<B>BOLD</B>', 'X'.repeat(10_000), 'FANCY'])(
    'has no signal named that no system has (%#)',
    async (name) => {
      SIGNALS[name] = 1;
      afterThisTest(() => Reflect.deleteProperty(SIGNALS, name));
      expect(await exitAt((channel) => channel.exit(name))).toMatchObject({
        ...{ cause: 'signal', code: null, signal: null, message: null },
      });
    },
  );

  it('has the name of a signal passed on that there is', async () => {
    expect(await exitAt((channel) => channel.exit('KILL'))).toMatchObject({
      cause: 'signal',
      signal: 'SIGKILL',
    });
  });
});
