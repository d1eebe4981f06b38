import { afterEach, expect, it } from '@jest/globals';
import { startCutProxy } from '../../support/cut-proxy.ts';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import {
  NO_LIMITS,
  callEngine,
  createConfig,
  listContainers,
  createJob,
  openRunner,
  readOutcome,
  runToExit,
  createTarget,
} from './test-engine.ts';

const never = new AbortController().signal;

describeOn('docker', 'an engine that is in trouble', () => {
  const host = dockerHost();
  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0)) await cleanup();
  });

  /** The engine behind a proxy that can be cut. */
  async function proxied() {
    const proxy = await startCutProxy(host.host.replace('tcp:', 'http:'));
    cleanups.push(() => proxy.close());
    const address = proxy.url.replace('http:', 'tcp:');
    return { proxy, target: createTarget(createConfig(host, { image: host.smallImage, host: address })) };
  }

  it('that falls silent loses the run, once it has not answered twice', async () => {
    const { proxy, target } = await proxied();
    const runner = openRunner({ heartbeatMs: 500 });
    const job = createJob('echo ready; sleep 600');
    const events = runner.run(target, job, NO_LIMITS, never);
    while ((await events.next()).value?.type !== 'output');
    proxy.silence();
    const ending = readOutcome(events);
    // It has been given up once its input is let go of, which ends it; what is asked meanwhile is not heard.
    await until(
      () => listContainers(host, target.serverId),
      (found) => found.every(({ purpose, state }) => purpose !== 'run' || state !== 'running'),
      30_000,
    );
    proxy.restore();
    const { exit } = await ending;
    expect(exit).toMatchObject({ cause: 'lost', code: null });
    expect(await openRunner().cleanUp(target, job.runId)).toBe('verified');
  }, 60_000);

  it('where somebody kills the container tells of the signal', async () => {
    const runner = openRunner();
    const target = createTarget(createConfig(host, { image: host.smallImage }));
    const events = runner.run(target, createJob('echo ready; sleep 600'), NO_LIMITS, never);
    while ((await events.next()).value?.type !== 'output');
    const [container] = await listContainers(host, target.serverId);
    await callEngine(host, 'POST', `/containers/${container?.id ?? ''}/kill`);
    const { exit } = await readOutcome(events);
    expect(exit).toMatchObject({ cause: 'signal', code: null, signal: 'SIGKILL', cleanup: 'verified' });
  });

  it('where somebody removes the container under a job does not make it a success', async () => {
    const runner = openRunner();
    const target = createTarget(createConfig(host, { image: host.smallImage }));
    const events = runner.run(target, createJob('echo ready; sleep 600'), NO_LIMITS, never);
    while ((await events.next()).value?.type !== 'output');
    const [container] = await listContainers(host, target.serverId);
    await callEngine(host, 'DELETE', `/containers/${container?.id ?? ''}?force=1`);
    const { exit } = await readOutcome(events);
    expect(['signal', 'lost']).toContain(exit.cause);
    expect(exit).toMatchObject({ code: null, cleanup: 'verified' });
  });

  it('that was away while a container was made in advance has it removed when it is back', async () => {
    const { proxy, target } = await proxied();
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

  it('that cannot be reached is no fault of the program', async () => {
    const { proxy, target } = await proxied();
    proxy.cut();
    const { exit } = await runToExit(openRunner(), target, createJob('true'));
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'unverified' });
  });
});
