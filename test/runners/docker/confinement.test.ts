import { expect, it } from '@jest/globals';
import { localDialer } from '../../lib/ssh/servers.ts';
import { evidence } from '../../support/evidence.ts';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import {
  NO_LIMITS,
  callEngine,
  createConfig,
  getRunContainer,
  listContainers,
  createJob,
  openRunner,
  runToExit,
  createTarget,
  readUntilOutput,
} from './test-engine.ts';

const MIB = 2 ** 20;

describeOn('docker', 'the container of a job', () => {
  const host = dockerHost();
  const small = (changes: object = {}) => createConfig(host, { image: host.smallImage, ...changes });

  it('has no capabilities and no account of the image, and can write only to memory', async () => {
    const command = [
      'id -u; id -g',
      'grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status',
      'for folder in / /bin /etc /var /root /tmp /dev/shm; do',
      '  (echo x >$folder/probe) 2>/dev/null && echo "wrote $folder"',
      'done; true',
    ].join('\n');
    const { stdout } = await runToExit(openRunner(), createTarget(small()), createJob(command));
    expect(stdout.replaceAll('\t', ' ').split('\n')).toEqual([
      '10001',
      '10001',
      expect.stringMatching(/^CapBnd: *0+$|^CapEff: *0+$/),
      expect.stringMatching(/^CapBnd: *0+$|^CapEff: *0+$/),
      'NoNewPrivs: 1',
      'Seccomp: 2',
      'wrote /tmp',
      'wrote /dev/shm',
      '',
    ]);
  });

  it('has limits for memory, processes and scratch space, and no log, also without requested limits', async () => {
    const runner = openRunner();
    const target = createTarget(small());
    const stop = new AbortController();
    const job = createJob('echo ready; sleep 600');
    const events = runner.run(target, job, NO_LIMITS, stop.signal);
    await readUntilOutput(events);
    const container = await getRunContainer(host, target.serverId, job.runId);
    const inspected = (await callEngine(host, 'GET', `/containers/${container.id}/json`)) as {
      HostConfig: Record<string, unknown>;
    };
    expect(inspected.HostConfig).toMatchObject({
      NetworkMode: 'none',
      Memory: 512 * MIB,
      MemorySwap: 512 * MIB,
      PidsLimit: 256,
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      LogConfig: { Type: 'none' },
      Privileged: false,
      Tmpfs: { '/tmp': expect.stringMatching(/size=268435456/) },
    });
    stop.abort('cancelled');
    for await (const _event of events);
  });

  it('shows no secret to other users of the engine', async () => {
    const secret = 'value-of-an-environment-8c1f';
    evidence.registerSecret('password', secret);
    const runner = openRunner();
    const target = createTarget(small({ environment: { FROM_SERVER: secret, BOTH: 'server' } }));
    const job = createJob('echo "$BOTH"; [ -n "$FROM_SERVER" ] && echo set; sleep 600', {
      env: { BOTH: 'job' },
    });
    const stop = new AbortController();
    const events = runner.run(target, job, NO_LIMITS, stop.signal);
    let output = '';
    for await (const event of events) {
      if (event.type === 'output') output += Buffer.from(event.data).toString();
      if (!output.includes('set\n') || stop.signal.aborted) continue;
      const container = await getRunContainer(host, target.serverId, job.runId);
      const all = JSON.stringify(await callEngine(host, 'GET', `/containers/${container.id}/json`));
      expect(all).not.toContain(secret);
      expect(all).not.toContain(target.owner);
      stop.abort('cancelled');
    }
    expect(output).toBe('job\nset\n');
  });

  it('has a network if one is requested', async () => {
    const command = 'ls /sys/class/net';
    const { stdout } = await runToExit(openRunner(), createTarget(small()), createJob(command), {
      network: 'any',
    });
    expect(stdout.split('\n')).toContain('eth0');
  });

  it('distinguishes a program killed for its memory from a program with a killed child', async () => {
    const runner = openRunner();
    const memoryProgram = "x=$(head -c 400000000 /dev/zero | tr '\\0' a)";
    const limits = { memoryBytes: 64 * MIB };
    const killed = await runToExit(runner, createTarget(small()), createJob(memoryProgram), limits);
    expect(killed.exit).toMatchObject({ cause: 'out_of_memory', code: null, cleanup: 'verified' });
    const child = await runToExit(
      runner,
      createTarget(small()),
      createJob(`sh -c "${memoryProgram.replace('$', '\\$')}"; exit 3`),
      limits,
    );
    expect(child.exit).toMatchObject({ cause: 'exited', code: 3, cleanup: 'verified' });
  });

  it('ends by itself when the connection of the app is gone', async () => {
    const sockets: { destroy(): unknown }[] = [];
    const dialer = localDialer();
    const connect: typeof dialer.connect = async (...address) => {
      const socket = await dialer.connect(...address);
      sockets.push(socket);
      return socket;
    };
    const runner = openRunner({ dialer: { ...dialer, connect } });
    const target = createTarget(small());
    const events = runner.run(
      target,
      createJob('trap "" HUP TERM; echo ready; while :; do sleep 1; done'),
      NO_LIMITS,
      new AbortController().signal,
    );
    await readUntilOutput(events);
    // As when the app's process ends: the engine receives no further request.
    await dialer.close();
    for (const socket of sockets) socket.destroy();
    await until(
      () => listContainers(host, target.serverId),
      (found) => found.every(({ state }) => state !== 'running'),
    );
    await events.return();
    for (const { id } of await listContainers(host, target.serverId))
      await callEngine(host, 'DELETE', `/containers/${id}?force=1`);
  });
});
