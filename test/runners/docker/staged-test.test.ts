import { expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { createDialer } from '../../../src/lib/net/dialer.ts';
import type { TargetServer } from '../../../src/runners/runner.ts';
import type { DockerConfig } from '../../../src/runners/docker/config.ts';
import { startTcpUpstream } from '../../support/local-upstreams.ts';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import {
  afterThisTest,
  callEngine,
  createConfig,
  listContainers,
  createJob,
  openRunner,
  readOutcome,
  NO_LIMITS,
  createTarget,
} from './test-engine.ts';

const neverAborted = new AbortController().signal;

describeOn('docker', 'the test of a Docker server', () => {
  const host = dockerHost();
  const small = (changes: object = {}) => createConfig(host, { image: host.smallImage, ...changes });

  async function test(config: DockerConfig, changes: Partial<TargetServer<DockerConfig>> = {}) {
    const target = createTarget(config, changes);
    const result = await openRunner().test(target, neverAborted);
    expect(await listContainers(host, target.serverId)).toEqual([]);
    const failed = result.stages.find(({ status }) => status !== 'ok');
    const passed = result.stages.filter(({ status }) => status === 'ok').map(({ name }) => name);
    return {
      status: result.status,
      message: result.message,
      failed: failed?.name,
      passed,
      stages: result.stages,
    };
  }

  it('passes all stages on a working engine, and leaves nothing', async () => {
    const { status, passed } = await test(small());
    expect(status).toBe('online');
    expect(passed).toEqual([
      ...['policy', 'tcp', 'tls', 'authentication', 'permission'],
      ...['workspace', 'echo', 'kill', 'cleanup'],
    ]);
  });

  it.each([
    [host.smallImage, /Interpreters: python: none; javascript: none; bash: none\.$/],
    [
      host.image,
      /Interpreters: python: \S*python3 3\.\d+.*; javascript: \S*node \d+\.\d+.*; bash: \S*bash \d/,
    ],
  ])('names the interpreters of the image %s', async (image, interpreters) => {
    const { status, stages } = await test(small({ image }));
    expect(status).toBe('online');
    expect(stages.find(({ name }) => name === 'echo')?.message).toMatch(interpreters);
  });

  it('fails in the stage of the error, and tells the user what to do', async () => {
    const { port: plainPort } = await startTcpUpstream((socket) => socket.write('SSH-2.0-x\r\n'));
    const untrusted = { client_cert: host.untrustedCert, client_key: host.untrustedKey };
    const cases = [
      [small({ host: 'tcp://169.254.169.254:2376' }), 'forbidden', 'policy', /may not be reached/],
      [small({ host: 'tcp://127.0.0.1:1' }), 'offline', 'tcp', /Nothing accepts/],
      [
        small({ host: 'tcp://nowhere.invalid:2376' }),
        'forbidden',
        'policy',
        /not found, or may not be reached/,
      ],
      [small({ host: `tcp://127.0.0.1:${plainPort}` }), 'error', 'tls', /does not use TLS/],
      [small({ ca: host.untrustedCert }), 'error', 'tls', /not signed/],
      [small(untrusted), 'auth_failed', 'authentication', /client_cert/],
      [small({ image: 'ops-test/none:1' }), 'error', 'workspace', /ops-test\/none:1/],
      [small({ volumes: [{ source: '/srv/none', target: '/data' }] }), 'error', 'workspace', /volume/],
    ] as const;
    for (const [config, status, stage, message] of cases) {
      const result = await test(config);
      expect(result).toMatchObject({ status, failed: stage, message: expect.stringMatching(message) });
      const after = result.stages.slice(result.passed.length + 1);
      expect(after.every((each) => each.status === 'skipped')).toBe(true);
    }
  });

  it('fails for a missing working folder', async () => {
    const { status, failed, message } = await test(small(), { workspacePath: '/none' });
    expect([status, failed]).toEqual(['error', 'workspace']);
    expect(message).toMatch(/working folder/);
  });

  it.each([
    ['of the image', '/', { read_only: false, target: '/data' }, 'error'],
    ['of a volume that only root can write', '/data', { read_only: false, target: '/data' }, 'error'],
    [
      'inside a read-only volume of another folder',
      '/database',
      { read_only: true, target: '/data' },
      'error',
    ],
    ['of a volume that is marked as read-only', '/data', { read_only: true, target: '/data' }, 'online'],
  ])('passes for a working folder %s only if the user has said that it is read-only', async (...each) => {
    const [, workspacePath, volume, status] = each;
    const source = `ops-test-${randomUUID()}`;
    await callEngine(host, 'POST', '/volumes/create', { Name: source });
    afterThisTest(() => callEngine(host, 'DELETE', `/volumes/${source}`));
    const volumes = [
      { source, ...volume },
      { source: `${source}-2`, target: '/database' },
    ];
    afterThisTest(() => callEngine(host, 'DELETE', `/volumes/${source}-2`));
    const result = await test(small({ volumes }), { workspacePath });
    expect(result.status).toBe(status);
    if (status === 'error')
      expect(result).toMatchObject({
        failed: 'workspace',
        message: expect.stringMatching(/cannot be written/),
      });
    else expect(result.stages.find(({ name }) => name === 'workspace')?.message).toMatch(/is read-only/);
  });

  it('names a missing image in the exit of a run', async () => {
    const target = createTarget(small({ image: 'ops-test/none:1' }));
    const { exit } = await readOutcome(
      openRunner().run(target, createJob('echo ran'), NO_LIMITS, neverAborted),
    );
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(exit.message).toMatch(/ops-test\/none:1 is not on the engine/);
  });

  it('never uses an engine of this machine, regardless of DOCKER_HOST', async () => {
    const { DOCKER_HOST: before } = process.env;
    process.env['DOCKER_HOST'] = `unix://${host.socketPath}`;
    try {
      const { status, failed } = await test(small({ host: 'tcp://127.0.0.1:1' }));
      expect([status, failed]).toEqual(['offline', 'tcp']);
    } finally {
      if (before === undefined) delete process.env['DOCKER_HOST'];
      else process.env['DOCKER_HOST'] = before;
    }
  });

  it('applies the address policy to runs', async () => {
    const dialer = createDialer({
      mode: 'deployed',
      allow: undefined,
      deny: [],
      forbidden: () => [],
      connectTimeoutMs: 5_000,
    });
    const runner = openRunner({ dialer });
    const { exit } = await readOutcome(
      runner.run(createTarget(small()), createJob('echo ran'), NO_LIMITS, neverAborted),
    );
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null });
    expect(exit.message).toMatch(/may not be reached/);
    await dialer.close();
  });
});
