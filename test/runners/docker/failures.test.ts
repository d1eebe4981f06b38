import { expect, it } from '@jest/globals';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { removeStaleContainers } from '../../../src/runners/docker/cleanup.ts';
import { createEngine } from '../../../src/runners/docker/engine.ts';
import { localDialer } from '../../lib/ssh/servers.ts';
import { startCutProxy } from '../../support/cut-proxy.ts';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import {
  afterThisTest,
  NO_LIMITS,
  callEngine,
  createConfig,
  getRunContainer,
  listContainers,
  createJob,
  openRunner,
  readOutcome,
  readUntilOutput,
  runToExit,
  createTarget,
} from './test-engine.ts';

const neverAborted = new AbortController().signal;

describeOn('docker', 'a failing engine', () => {
  const host = dockerHost();

  /** The engine behind a proxy that can cut the connection. */
  async function startProxied() {
    const proxy = await startCutProxy(host.host.replace('tcp:', 'http:'));
    // Before the runner is opened, so that the runner can still remove its containers when it closes.
    afterThisTest(() => proxy.close());
    const address = proxy.url.replace('http:', 'tcp:');
    return { proxy, target: createTarget(createConfig(host, { image: host.smallImage, host: address })) };
  }

  it('loses a run after two pings without a response', async () => {
    const { proxy, target } = await startProxied();
    const runner = openRunner({ heartbeatMs: 500 });
    const job = createJob('echo ready; sleep 600');
    const events = runner.run(target, job, NO_LIMITS, neverAborted);
    await readUntilOutput(events);
    proxy.silence();
    const outcome = readOutcome(events);
    // The run is given up when the runner closes its input, which ends the container. Later requests get no
    // response.
    await until(
      () => listContainers(host, target.serverId),
      (found) => found.every(({ purpose, state }) => purpose !== 'run' || state !== 'running'),
      30_000,
    );
    proxy.restore();
    const { exit } = await outcome;
    expect(exit).toMatchObject({ cause: 'lost', code: null });
    expect(await openRunner().cleanUp(target, job.runId)).toBe('verified');
  }, 60_000);

  it('reports the signal if the container is killed from outside', async () => {
    const runner = openRunner();
    const target = createTarget(createConfig(host, { image: host.smallImage }));
    const job = createJob('echo ready; sleep 600');
    const events = runner.run(target, job, NO_LIMITS, neverAborted);
    await readUntilOutput(events);
    const container = await getRunContainer(host, target.serverId, job.runId);
    await callEngine(host, 'POST', `/containers/${container.id}/kill`);
    const { exit } = await readOutcome(events);
    expect(exit).toMatchObject({ cause: 'signal', code: null, signal: 'SIGKILL', cleanup: 'verified' });
  });

  it('does not report success if the container is removed during a job', async () => {
    const runner = openRunner();
    const target = createTarget(createConfig(host, { image: host.smallImage }));
    const job = createJob('echo ready; sleep 600');
    const events = runner.run(target, job, NO_LIMITS, neverAborted);
    await readUntilOutput(events);
    const container = await getRunContainer(host, target.serverId, job.runId);
    await callEngine(host, 'DELETE', `/containers/${container.id}?force=1`);
    const { exit } = await readOutcome(events);
    expect(['signal', 'lost']).toContain(exit.cause);
    expect(exit).toMatchObject({ code: null, cleanup: 'verified' });
  });

  it('removes a pre-started container after an outage of the engine', async () => {
    const { proxy, target } = await startProxied();
    const runner = openRunner();
    await runToExit(runner, target, createJob('true'));
    await until(
      () => listContainers(host, target.serverId),
      (found) => found.some(({ purpose, state }) => purpose === 'warm' && state === 'running'),
    );
    proxy.cut();
    await until(
      () => listContainers(host, target.serverId),
      (found) => found.every(({ state }) => state !== 'running'),
    );
    proxy.restore();
    await runner.close();
    expect(await listContainers(host, target.serverId)).toEqual([]);
  });

  /** Starts a job on an engine that stops responding as soon as the next container is being started. */
  async function silenceDuringPreStart() {
    const { proxy, target } = await startProxied();
    const runner = openRunner();
    const job = createJob('echo ready; sleep 600');
    const stop = new AbortController();
    const events = runner.run(target, job, NO_LIMITS, stop.signal);
    await readUntilOutput(events);
    proxy.silence();
    return { proxy, target, runner, job, stop, outcome: readOutcome(events) };
  }

  it('closes within seconds during a pre-start on an engine that does not respond', async () => {
    const { proxy, target, runner, job, stop, outcome } = await silenceDuringPreStart();
    const startMs = performance.now();
    await runner.close();
    expect(performance.now() - startMs).toBeLessThan(12_000);
    proxy.restore();
    stop.abort('cancelled');
    await outcome;
    expect(await openRunner().cleanUp(target, job.runId)).toBe('verified');
    const dialer = localDialer();
    const engine = createEngine(target, { dialer, ssh: createSshConnections({ dialer }) });
    await removeStaleContainers(engine, target, { staleMs: -5_000 });
    engine.close();
    await dialer.close();
    expect(await listContainers(host, target.serverId)).toEqual([]);
  }, 60_000);

  it('leaves no container if the engine responds again while the runner closes', async () => {
    const { proxy, target, runner, job, stop, outcome } = await silenceDuringPreStart();
    const closed = runner.close();
    proxy.restore();
    await closed;
    expect((await listContainers(host, target.serverId)).filter(({ purpose }) => purpose === 'warm')).toEqual(
      [],
    );
    stop.abort('cancelled');
    await outcome;
    expect(await openRunner().cleanUp(target, job.runId)).toBe('verified');
  }, 60_000);

  it('reports infrastructure if the engine cannot be reached', async () => {
    const { proxy, target } = await startProxied();
    proxy.cut();
    const { exit } = await runToExit(openRunner(), target, createJob('true'));
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'unverified' });
  });
});
