import { expect, it, jest } from '@jest/globals';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { createEngineConnector } from '../../../src/runners/docker/engine-connector.ts';
import { localDialer, neverAborted, withParsedConfig, serverAt } from '../../lib/ssh/servers.ts';
import { describeOn, dockerHost, sshHosts } from '../../support/hosts.ts';
import { itTogether } from '../../support/it-together.ts';
import {
  afterThisTest,
  NO_LIMITS,
  createConfig,
  listContainers,
  createJob,
  openRunner,
  readOutcome,
  readUntilOutput,
  runToExit,
  createTarget,
} from './test-engine.ts';

jest.setTimeout(90_000);

describeOn('docker', 'a Docker server behind an SSH server', () => {
  const host = dockerHost();
  const itOverSsh = host.overSsh ? it : it.skip;

  /** A Docker server whose host is the SSH server with the id `ssh-1`. */
  function target(changes?: Parameters<typeof withParsedConfig>[0]) {
    const owner = 'user:one' as const;
    const server = changes ?? serverAt(sshHosts().plain, {}, { serverId: 'ssh-1', owner });
    const tls = { ca: null, client_cert: null, client_key: null };
    const config = createConfig(host, { ...tls, host: 'ssh-1', image: host.smallImage });
    const sshServer = {
      ...withParsedConfig(server),
      workspacePath: null,
      jumpServers: new Map<string, never>(),
    };
    return createTarget(config, { owner, jumpServers: new Map([['ssh-1', sshServer]]) });
  }

  /** As {@link target}, with another account of the tests. */
  function targetWithAccount(name: string) {
    const { accounts, user } = sshHosts();
    const overrides = { serverId: 'ssh-1', owner: 'user:one' as const };
    return target(serverAt(accounts, { username: `${user}-${name}` }, overrides));
  }

  itOverSsh('is tested with the stages of SSH and of a container', async () => {
    const result = await openRunner().test(target(), new AbortController().signal);
    expect(result).toMatchObject({ status: 'online' });
    expect(result.stages.map(({ name, status }) => `${name} ${status}`)).toEqual([
      ...['policy ok', 'tcp ok', 'host_key ok', 'authentication ok', 'permission ok'],
      ...['workspace ok', 'echo ok', 'kill ok', 'cleanup ok'],
    ]);
  });

  itOverSsh('runs jobs, also in pre-started containers, and stops them', async () => {
    const runner = openRunner();
    const server = target();
    for (const text of ['one', 'two']) {
      const { stdout, exit } = await runToExit(
        runner,
        server,
        createJob('cat', { stdin: Buffer.from(text) }),
      );
      expect(stdout).toBe(text);
      expect(exit).toMatchObject({ cause: 'exited', code: 0, cleanup: 'verified' });
    }
    const stop = new AbortController();
    const events = runner.run(server, createJob('echo ready; sleep 600'), NO_LIMITS, stop.signal);
    await readUntilOutput(events);
    stop.abort('cancelled');
    const { exit } = await readOutcome(events);
    expect(exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    await runner.close();
    expect(await listContainers(host, server.serverId)).toEqual([]);
  });

  async function isOnlineAndRunsJobs(name: string): Promise<void> {
    const server = targetWithAccount(name);
    const runner = openRunner();
    const [test, { stdout, exit }] = await Promise.all([
      runner.test(server, neverAborted()),
      runToExit(runner, server, createJob('cat', { stdin: Buffer.from("it's !") })),
    ]);
    expect(test).toMatchObject({ status: 'online' });
    expect(stdout).toBe("it's !");
    expect(exit).toMatchObject({ cause: 'exited', code: 0, cleanup: 'verified' });
  }

  async function sendsNoRequest(name: string): Promise<void> {
    const owned = `/var/lib/${sshHosts().user}-${name}/owned`;
    const dialer = localDialer();
    const ssh = createSshConnections({ dialer });
    afterThisTest(async () => {
      await ssh.close();
      await dialer.close();
      await rm(owned, { force: true });
    });
    const server = targetWithAccount(name);
    const connect = createEngineConnector(server, { dialer, ssh });
    const [test, { exit }, request] = await Promise.all([
      openRunner().test(server, neverAborted()),
      runToExit(openRunner(), server, createJob('echo ran')),
      connect(neverAborted()).then(
        async (stream) => {
          stream.end(`touch ${owned}\n`);
          for await (const _chunk of stream);
        },
        (error: unknown) => error,
      ),
    ]);
    const message = expect.stringContaining(
      'another program reads its input, so nothing of the request was sent',
    );
    expect(existsSync(owned)).toBe(false);
    expect(request).toMatchObject({ message });
    expect(test).toMatchObject({ status: 'error', message });
    expect(test.stages.find(({ status }) => status === 'failed')?.name).toBe('permission');
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified', message });
  }

  if (host.overSsh)
    itTogether(
      [
        ...['tcsh', 'csh', 'fish', 'busybox'].map(
          (name) =>
            [
              `is online and runs jobs for an account with the shell ${name}`,
              () => isOnlineAndRunsJobs(name),
            ] as const,
        ),
        [
          'is online for an account whose start files take 12 s',
          async () => {
            const result = await openRunner().test(targetWithAccount('slow'), neverAborted());
            expect(result).toMatchObject({ status: 'online' });
          },
        ],
        ...['exec-bash', 'exec-fish', 'forced'].map(
          (name) =>
            [
              `sends no request to a shell that reads the input, and names the cause: ${name}`,
              () => sendsNoRequest(name),
            ] as const,
        ),
      ],
      90_000,
    );

  itOverSsh('is not reached if the host key is unknown or has changed', async () => {
    const { plain, jump } = sshHosts();
    for (const [hostKey, status] of [
      [null, 'host_key_unknown'],
      [jump.hostKey, 'host_key_changed'],
    ] as const) {
      const server = { ...serverAt(plain, {}, { serverId: 'ssh-1', owner: 'user:one' as const }), hostKey };
      const result = await openRunner().test(target(server), new AbortController().signal);
      expect(result).toMatchObject({ status, hostKey: plain.hostKey });
      expect(result.stages.find((stage) => stage.status === 'failed')?.name).toBe('host_key');
      const { exit } = await runToExit(openRunner(), target(server), createJob('echo ran'));
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null });
    }
  });

  it('is not reached through a missing server or another owner’s server', async () => {
    const reachable = target(
      serverAt(
        { host: '127.0.0.1', port: 1, hostKey: { type: 'ssh-ed25519', fingerprint: 'SHA256:x' } },
        {},
        { serverId: 'ssh-1', owner: 'user:one' as const },
      ),
    );
    for (const server of [
      { ...reachable, jumpServers: new Map() },
      { ...reachable, owner: 'user:two' as const },
    ]) {
      const result = await openRunner().test(server, new AbortController().signal);
      expect(result).toMatchObject({ message: expect.stringMatching(/not one of yours/) });
      expect(result.status).not.toBe('online');
      const { exit } = await runToExit(openRunner(), server, createJob('echo ran'));
      expect(exit).toMatchObject({
        cause: 'infrastructure',
        message: expect.stringMatching(/not one of yours/),
      });
    }
  });
});
