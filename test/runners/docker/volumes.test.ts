import { randomUUID } from 'node:crypto';
import { expect, it } from '@jest/globals';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import {
  NO_LIMITS,
  afterThisTest,
  callEngine,
  createConfig,
  createJob,
  openRunner,
  runToExit,
  createTarget,
} from './test-engine.ts';

describeOn('docker', 'volumes of a job', () => {
  const host = dockerHost();

  /** A server with a named volume as its workspace, in which jobs may write. */
  async function withVolume(readOnly = false) {
    const source = `ops-test-${randomUUID()}`;
    await callEngine(host, 'POST', '/volumes/create', { Name: source });
    // (Registered before the runner's cleanup and therefore run after it: a pre-started container uses the
    // volume.)
    afterThisTest(async () => {
      await callEngine(host, 'DELETE', `/volumes/${source}`);
      const { Volumes } = (await callEngine(host, 'GET', '/volumes')) as {
        Volumes: { Name: string }[] | null;
      };
      expect(Volumes?.map(({ Name }) => Name) ?? []).not.toContain(source);
    });
    await inVolume(source, 'chmod 777 /data; echo kept >/data/mine; chmod 666 /data/mine');
    const volumes = [{ source, target: '/data', read_only: readOnly }];
    const config = createConfig(host, { image: host.smallImage, volumes });
    return { source, target: createTarget(config, { workspacePath: '/data' }) };
  }

  /** Runs a command as root, without the code under test. */
  async function inVolume(source: string, command: string): Promise<void> {
    const mount = { Type: 'volume', Source: source, Target: '/data' };
    const spec = { Image: host.smallImage, Cmd: ['sh', '-c', command], HostConfig: { Mounts: [mount] } };
    const { Id: id } = (await callEngine(host, 'POST', '/containers/create', spec)) as { Id: string };
    await callEngine(host, 'POST', `/containers/${id}/start`);
    await callEngine(host, 'POST', `/containers/${id}/wait`);
    await callEngine(host, 'DELETE', `/containers/${id}?force=1`);
  }

  const files = [{ path: 'sub/given', content: Buffer.from('given') }];

  it('keep what a job writes, and none of its input files', async () => {
    const { target } = await withVolume();
    const runner = openRunner();
    const first = await runToExit(
      runner,
      target,
      createJob('pwd; cat mine sub/given; echo new >made', { files }),
    );
    expect(first.stdout).toBe('/data\nkept\ngiven');
    expect(first.exit).toMatchObject({ cause: 'exited', code: 0, cleanup: 'verified' });
    const { stdout } = await runToExit(runner, target, createJob('ls -A /data', { workdir: '/tmp' }));
    expect(stdout).toBe('made\nmine\n');
  });

  it('keep no input file of a killed job', async () => {
    const { target } = await withVolume();
    const runner = openRunner();
    const stop = new AbortController();
    // Also if the job has killed the process that watches its input.
    const command = [
      'for other in /proc/[0-9]*; do other=${other#/proc/}',
      '  [ $other = 1 ] || [ $other = $$ ] || kill -9 $other',
      'done; echo ready; sleep 600',
    ].join('\n');
    const events = runner.run(target, createJob(command, { files }), NO_LIMITS, stop.signal);
    let exit: unknown;
    for await (const event of events) {
      if (event.type === 'output') stop.abort('cancelled');
      if (event.type === 'exit') exit = event;
    }
    expect(exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    const { stdout } = await runToExit(runner, target, createJob('ls -A /data', { workdir: '/tmp' }));
    expect(stdout).toBe('mine\n');
  });

  it('are left unchanged if an input file exists already', async () => {
    const { target } = await withVolume();
    const runner = openRunner();
    const clash = [...files, { path: 'mine', content: Buffer.from('other') }];
    const { exit } = await runToExit(runner, target, createJob('echo ran', { files: clash }));
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(exit.message).toMatch(/there already/);
    const { stdout } = await runToExit(
      runner,
      target,
      createJob('ls -A /data; cat /data/mine', { workdir: '/tmp' }),
    );
    expect(stdout).toBe('mine\nkept\n');
  });

  it('keep nothing of a test of the server', async () => {
    const { target } = await withVolume();
    const runner = openRunner();
    expect(await runner.test(target, new AbortController().signal)).toMatchObject({ status: 'online' });
    const { stdout } = await runToExit(runner, target, createJob('ls -A /data', { workdir: '/tmp' }));
    expect(stdout).toBe('mine\n');
  });

  it('receive no writes after the job', async () => {
    const { target } = await withVolume();
    const runner = openRunner();
    const command =
      '(setsid sh -c "while :; do echo x >>/data/grows; done" &) ; until [ -s grows ]; do :; done';
    const { exit } = await runToExit(runner, target, createJob(command));
    expect(exit).toMatchObject({ cause: 'exited', code: 0, cleanup: 'verified' });
    const sizes = [];
    for (let round = 0; round < 2; round += 1)
      sizes.push(
        (await runToExit(runner, target, createJob('wc -c </data/grows', { workdir: '/tmp' }))).stdout,
      );
    expect(sizes[0]).toBe(sizes[1]);
  });

  it('may be read-only for a job without input files', async () => {
    const { target } = await withVolume(true);
    const runner = openRunner();
    const { stdout, exit } = await runToExit(
      runner,
      target,
      createJob('pwd; cat mine; echo x >made || true'),
    );
    expect(stdout).toBe('/data\nkept\n');
    expect(exit).toMatchObject({ cause: 'exited', code: 0 });
    const refused = await runToExit(runner, target, createJob('echo ran', { files }));
    expect(refused.exit).toMatchObject({ cause: 'infrastructure' });
    expect(refused.exit.message).toMatch(/read-only/);
  });

  it('are reported if their folder is missing, and the folder is not created', async () => {
    const volumes = [{ source: `/srv/none-${randomUUID()}, readonly:rw`, target: '/data' }];
    const target = createTarget(createConfig(host, { image: host.smallImage, volumes }));
    for (const _ of [1, 2]) {
      const { exit } = await runToExit(openRunner(), target, createJob('echo ran'));
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
      expect(exit.message).toMatch(/does not have/);
    }
  });
});
