import { expect, it } from '@jest/globals';
import { describeOnPodman, podmanHost } from '../../support/hosts.ts';
import { createSshTarget, startSshServerWithDocker } from './ssh-server-with-docker.ts';
import {
  NO_LIMITS,
  afterThisTest,
  createConfig,
  createJob,
  createTarget,
  listContainers,
  openRunner,
  readOutcome,
  readUntilOutput,
  runToExit,
} from './test-engine.ts';

const neverAborted = new AbortController().signal;
const NO_TLS = { ca: null, client_cert: null, client_key: null };

describeOnPodman('podman in place of a Docker Engine, with an image without ps', () => {
  const host = podmanHost();
  const target = () => createTarget(createConfig({ ...host, overSsh: false }));
  const runContainers = async (serverId: string) =>
    (await listContainers({ ...host, overSsh: false }, serverId)).filter(({ purpose }) => purpose === 'run');

  it('is tested with all stages, and nothing is left', async () => {
    const server = target();
    const result = await openRunner().test(server, neverAborted);
    expect(result).toMatchObject({ status: 'online' });
    expect(result.stages.filter(({ status }) => status !== 'ok')).toEqual([]);
    expect(await listContainers({ ...host, overSsh: false }, server.serverId)).toEqual([]);
  });

  it('runs jobs with input, files and variables, also in pre-started containers', async () => {
    const [runner, server] = [openRunner(), target()];
    const job = { stdin: Buffer.from('in '), files: [{ path: 'a/b', content: Buffer.from('file ') }] };
    for (const value of ['one', 'two']) {
      const command = 'cat; cat a/b; echo "$VALUE"; [ -e /bin/ps ] || echo no ps >&2; exit 3';
      const outcome = await runToExit(runner, server, createJob(command, { ...job, env: { VALUE: value } }));
      expect(outcome).toMatchObject({ stdout: `in file ${value}\n`, stderr: expect.stringMatching(/no ps/) });
      expect(outcome.exit).toMatchObject({ cause: 'exited', code: 3, cleanup: 'verified' });
    }
    expect(await runContainers(server.serverId)).toEqual([]);
  });

  it.each(['cancelled', 'timeout'])(
    'kills the whole process tree of a run that is stopped (%s)',
    async (cause) => {
      const [runner, server] = [openRunner(), target()];
      const stop = new AbortController();
      const job = createJob('(setsid sleep 600 &); echo ready; sleep 600');
      const events = runner.run(server, job, NO_LIMITS, stop.signal);
      await readUntilOutput(events);
      stop.abort(cause);
      const { exit } = await readOutcome(events);
      expect(exit).toMatchObject({ cause, code: null, cleanup: 'verified' });
      expect(await runContainers(server.serverId)).toEqual([]);
    },
  );

  it('is reached through an SSH server on which podman stands in for docker', async () => {
    const server = await startSshServerWithDocker();
    afterThisTest(() => server.stop());
    await server.writeDocker(`exec /usr/bin/podman --remote --url unix://${host.socketPath} "$@"`);
    const config = createConfig({ ...host, overSsh: false }, { ...NO_TLS, host: 'ssh-1' });
    const viaSsh = createTarget(config, { jumpServers: new Map([['ssh-1', createSshTarget(server)]]) });
    const runner = openRunner();
    expect(await runner.test(viaSsh, neverAborted)).toMatchObject({ status: 'online' });
    const outcome = await runToExit(runner, viaSsh, createJob('cat', { stdin: Buffer.from('in') }));
    expect(outcome).toMatchObject({ stdout: 'in', exit: { cause: 'exited', code: 0, cleanup: 'verified' } });
  });

  it('limits the processes of a run', async () => {
    const command = 'for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; wait';
    const { stderr } = await runToExit(openRunner(), target(), createJob(command), { pids: 8 });
    expect(stderr).toMatch(/can't fork/);
  });

  it('is cleaned up after the process that started a run has ended', async () => {
    const server = target();
    const job = createJob('echo ready; sleep 600');
    const events = openRunner().run(server, job, NO_LIMITS, neverAborted);
    await readUntilOutput(events);
    expect(await runContainers(server.serverId)).toHaveLength(1);
    expect(await openRunner().cleanUp(server, job.runId)).toBe('verified');
    expect(await runContainers(server.serverId)).toEqual([]);
    const { exit } = await readOutcome(events);
    expect(exit).toMatchObject({ code: null, cleanup: 'verified' });
  });
});
