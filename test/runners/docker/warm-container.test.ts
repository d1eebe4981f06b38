import { expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { containerLabels } from '../../../src/runners/docker/containers.ts';
import { createEngine } from '../../../src/runners/docker/engine.ts';
import { removeStaleContainers } from '../../../src/runners/docker/cleanup.ts';
import { localDialer } from '../../lib/ssh/servers.ts';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import {
  NO_LIMITS,
  afterThisTest,
  callEngine,
  createConfig,
  listContainers,
  createJob,
  openRunner,
  runToExit,
  createTarget,
  readUntilOutput,
} from './test-engine.ts';

describeOn('docker', 'the pre-started container', () => {
  const host = dockerHost();
  const config = createConfig(host, { image: host.smallImage });
  const all = (serverId: string) => listContainers(host, serverId);
  const warm = async (serverId: string) => (await all(serverId)).filter(({ purpose }) => purpose === 'warm');
  const waitForWarm = (serverId: string) =>
    until(
      () => warm(serverId),
      (found) => found.length === 1 && found[0]?.state === 'running',
    ).then(([found]) => found?.id);

  it('is created after a job, serves one job, and is replaced', async () => {
    const runner = openRunner();
    const target = createTarget(config);
    const first = await runToExit(runner, target, createJob('hostname; echo x >/tmp/left'));
    const containerId = await waitForWarm(target.serverId);
    const second = await runToExit(runner, target, createJob('hostname; ls -A /tmp'));
    expect(containerId).toContain(second.stdout.split('\n')[0]);
    expect(second.stdout).not.toContain(first.stdout.trim());
    expect(second.stdout).not.toContain('left');
    expect(await waitForWarm(target.serverId)).not.toBe(containerId);
  });

  it('is not used for another owner, another server or another version', async () => {
    const runner = openRunner();
    for (const change of [{ owner: 'user:two' as const }, { version: 2 }, { serverId: randomUUID() }]) {
      const target = createTarget(config);
      await runToExit(runner, target, createJob('true'));
      const containerId = await waitForWarm(target.serverId);
      const { stdout } = await runToExit(runner, { ...target, ...change }, createJob('hostname'));
      expect(stdout.trim()).not.toBe('');
      expect(containerId).not.toContain(stdout.trim());
    }
  });

  it('stays reserved for the newer version if a job uses an older one', async () => {
    const runner = openRunner();
    const target = createTarget(config, { version: 2 });
    await runToExit(runner, target, createJob('true'));
    const containerId = await waitForWarm(target.serverId);
    const late = await runToExit(runner, { ...target, version: 1 }, createJob('hostname'));
    expect(late.exit).toMatchObject({ cause: 'exited', code: 0, cleanup: 'verified' });
    expect(containerId).not.toContain(late.stdout.trim());
    const { stdout } = await runToExit(runner, target, createJob('hostname'));
    expect(containerId).toContain(stdout.trim());
  });

  it('is not used for a job with other limits', async () => {
    const runner = openRunner();
    const target = createTarget(config);
    await runToExit(runner, target, createJob('true'));
    const containerId = await waitForWarm(target.serverId);
    for (const limits of [
      { memoryBytes: 64 * 2 ** 20 },
      { cpus: 1 },
      { pids: 50 },
      { network: 'any' } as const,
    ]) {
      const { stdout } = await runToExit(runner, target, createJob('hostname'), limits);
      expect(containerId).not.toContain(stdout.trim());
    }
    const { stdout } = await runToExit(runner, target, createJob('hostname'), { network: 'none' });
    expect(containerId).toContain(stdout.trim());
  });

  it('is removed when its server is released, after the idle time, and on close', async () => {
    const runner = openRunner({ warmIdleMs: 1_500 });
    const target = createTarget(config);
    await runToExit(runner, target, createJob('true'));
    await waitForWarm(target.serverId);
    await runner.release(target.serverId);
    expect(await all(target.serverId)).toEqual([]);
    await runToExit(runner, { ...target, version: 2 }, createJob('true'));
    await waitForWarm(target.serverId);
    await until(
      () => all(target.serverId),
      (found) => found.length === 0,
    );
    const other = openRunner();
    await runToExit(other, target, createJob('true'));
    await waitForWarm(target.serverId);
    await other.close();
    expect(await all(target.serverId)).toEqual([]);
  });

  it('is replaced if it ends before a job uses it', async () => {
    const runner = openRunner();
    const target = createTarget(config);
    await runToExit(runner, target, createJob('true'));
    const containerId = await waitForWarm(target.serverId);
    await callEngine(host, 'POST', `/containers/${containerId ?? ''}/kill`);
    await until(
      () => warm(target.serverId),
      (found) => found.length === 0,
    );
    const { exit } = await runToExit(runner, target, createJob('true'));
    expect(exit).toMatchObject({ cause: 'exited', code: 0 });
    expect(await waitForWarm(target.serverId)).not.toBe(containerId);
  });

  it('is found by run id as soon as it has a job', async () => {
    const runner = openRunner();
    const target = createTarget(config);
    await runToExit(runner, target, createJob('true'));
    const containerId = await waitForWarm(target.serverId);
    const job = createJob('echo ready; sleep 600');
    const events = runner.run(target, job, NO_LIMITS, new AbortController().signal);
    await readUntilOutput(events);
    expect(await openRunner().cleanUp(target, job.runId)).toBe('verified');
    expect((await all(target.serverId)).map(({ id }) => id)).not.toContain(containerId);
    await events.return();
  });

  it('is removed by another instance after its own has ended', async () => {
    const target = createTarget(config);
    const labels = containerLabels(target, { purpose: 'warm' });
    const make = async (command: string) => {
      const spec = { Image: host.smallImage, Cmd: ['sh', '-c', command], Labels: labels };
      const { Id: id } = (await callEngine(host, 'POST', '/containers/create', spec)) as { Id: string };
      afterThisTest(() => callEngine(host, 'DELETE', `/containers/${id}?force=1`));
      return id;
    };
    const [ended, running, foreign] = [await make('true'), await make('sleep 600'), await make('true')];
    for (const id of [ended, running]) await callEngine(host, 'POST', `/containers/${id}/start`);
    await until(
      () => all(target.serverId),
      (found) => found.some(({ id, state }) => id === ended && state === 'exited'),
    );
    const dialer = localDialer();
    const engine = createEngine(target, { dialer, ssh: createSshConnections({ dialer }) });
    afterThisTest(() => dialer.close());
    const remaining = async () => (await all(target.serverId)).map(({ id }) => id);
    await removeStaleContainers(engine, { ...target, owner: 'user:two' as const }, { staleMs: 0 });
    await removeStaleContainers(engine, target);
    expect(new Set(await remaining())).toEqual(new Set([ended, running, foreign]));
    await removeStaleContainers(engine, target, { staleMs: -5_000 });
    expect(await remaining()).toEqual([running]);
    engine.close();
  });
});
