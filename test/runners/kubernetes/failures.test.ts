import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { createDialer, type Dialer } from '../../../src/lib/net/dialer.ts';
import { createKubernetesRunner } from '../../../src/runners/kubernetes/index.ts';
import { createClusterApi, type ClusterApi } from '../../../src/runners/kubernetes/api.ts';
import { toClusterAccess, type KubernetesConfig } from '../../../src/runners/kubernetes/config.ts';
import { readPodExitWithoutCode } from '../../../src/runners/kubernetes/exit.ts';
import { startExec } from '../../../src/runners/kubernetes/exec.ts';
import { createJobPod } from '../../../src/runners/kubernetes/job-pod.ts';
import { removeExpiredPods } from '../../../src/runners/kubernetes/cleanup.ts';
import { createPodManifest } from '../../../src/runners/kubernetes/manifest.ts';
import type { ExitEvent, Job, Limits, RunEvent } from '../../../src/runners/runner.ts';
import { certificate } from '../../support/certificate.ts';
import { startCutProxy } from '../../support/cut-proxy.ts';
import { describeOn } from '../../support/hosts.ts';
import { until } from '../../support/until.ts';
import {
  callCluster,
  getCluster,
  createConfig,
  localDialer,
  listPodNames,
  parsePastedConfig,
  createTarget,
} from './test-cluster.ts';

const LIMITS: Limits = {
  timeoutMs: 120_000,
  maxOutputBytes: 1_000_000,
  ...{ memoryBytes: null, cpus: null, pids: null, network: null },
};
const FOREVER = { command: 'echo ready; while :; do sleep 1; done' };
const TEST_MS = 120_000;
/**
 * A node measures volumes every 60 to 120 s (`volumeStatsAggPeriod` of kubelet, with a jitter of the same length), and
 * looks for pods to evict every 10 s.
 */
const EVICTION_TEST_MS = 240_000;

function createJob(change: Partial<Job> = {}): Job {
  return { runId: randomUUID(), program: FOREVER, stdin: null, files: [], env: {}, workdir: null, ...change };
}

describeOn('kubernetes', 'a failing cluster', () => {
  const host = getCluster();
  const serverId = randomUUID();
  let dialer: Dialer;
  let api: ClusterApi;

  beforeAll(() => {
    dialer = localDialer();
    api = createClusterApi(dialer, toClusterAccess(createConfig(host)));
  });
  afterAll(async () => {
    await api.close();
    await dialer.close();
    expect(await listPodNames(host, serverId)).toEqual([]);
  });

  const neverAborted = new AbortController().signal;
  const runner = () => createKubernetesRunner({ dialer, heartbeatMs: 300 });
  const target = (config = createConfig(host)) => createTarget(serverId, config);

  async function test(config: KubernetesConfig, by = dialer) {
    const result = await createKubernetesRunner({ dialer: by }).test(target(config), neverAborted);
    const failed = result.stages.filter(({ status }) => status === 'failed');
    return { ...result, failed: failed.map(({ name }) => name) };
  }

  async function readExit(events: AsyncGenerator<RunEvent, void>): Promise<ExitEvent> {
    for await (const event of events) if (event.type === 'exit') return event;
    throw new Error('the run ended without an exit');
  }

  async function waitUntilReady(events: AsyncGenerator<RunEvent, void>): Promise<void> {
    for (;;) {
      const { value } = await events.next();
      if (value === undefined || value.type === 'exit') throw new Error(JSON.stringify(value));
      if (value.type === 'output') return;
    }
  }

  it(
    'accepts a pasted kubeconfig in place of address and token',
    async () => {
      const result = await test(await parsePastedConfig(host.kubeconfig, host.image));
      expect(result).toMatchObject({ status: 'online', failed: [] });
    },
    TEST_MS,
  );

  it.each([
    ['/', 'error', ['workspace'], 'cannot be written'],
    ['/etc', 'error', ['workspace'], 'cannot be written'],
    ['/none', 'error', ['workspace'], 'does not exist'],
    ['/tmp', 'online', [], ''],
  ])(
    'tests a workspace as runs with files use it: %s',
    async (workspacePath, status, failed, message) => {
      const server = { ...target(), workspacePath };
      const result = await createKubernetesRunner({ dialer }).test(server, neverAborted);
      expect(result).toMatchObject({ status, message: expect.stringContaining(message) });
      expect(result.stages.filter((stage) => stage.status === 'failed').map(({ name }) => name)).toEqual(
        failed,
      );
      const job = createJob({
        program: { command: 'cat a' },
        files: [{ path: 'a', content: Buffer.from('x') }],
      });
      const exit = await readExit(runner().run(server, job, LIMITS, neverAborted));
      expect(exit.cause).toBe(status === 'online' ? 'exited' : 'infrastructure');
    },
    TEST_MS,
  );

  it('fails at authentication for an unknown token', async () => {
    const result = await test(createConfig(host, { service_account_token: 'unknown-token' }));
    expect(result).toMatchObject({ status: 'auth_failed', failed: ['authentication'] });
  });

  it('fails at TLS for a certificate of another authority, before the token is sent', async () => {
    const result = await test(createConfig(host, { ca_cert: certificate.cert }));
    expect(result).toMatchObject({ status: 'error', failed: ['tls'] });
    expect(result.message).toContain('ca_cert');
  });

  it('does not dial an address that the operator does not allow', async () => {
    const strict = createDialer({
      ...{ mode: 'deployed', allow: undefined, deny: [], forbidden: () => [], connectTimeoutMs: 5_000 },
    });
    const result = await test(createConfig(host), strict);
    expect(result).toMatchObject({ status: 'forbidden', failed: ['policy'] });
    await strict.close();
  });

  it('is offline if nothing listens on the port', async () => {
    const result = await test(createConfig(host, { cluster_url: 'https://127.0.0.1:1' }));
    expect(result).toMatchObject({ status: 'offline', failed: ['tcp'] });
  });

  it('names each missing right in a namespace without rights', async () => {
    const result = await test(createConfig(host, { namespace: 'kube-public' }));
    expect(result).toMatchObject({ status: 'forbidden', failed: ['permission'] });
    for (const right of ['create pods,', 'watch pods,', 'delete pods,', 'get pods/log', 'create pods/exec'])
      expect(result.message).toContain(right);
    const exit = await readExit(
      runner().run(
        target(createConfig(host, { namespace: 'kube-public' })),
        createJob(),
        LIMITS,
        neverAborted,
      ),
    );
    expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
    expect(exit.message).toContain('may not');
  });

  const { adminKubeconfig } = host;
  // Only an account with rights in all namespaces reaches a namespace that does not exist.
  (adminKubeconfig === undefined ? it.skip : it)(
    'fails at workspace for a missing namespace, and accepts a client certificate',
    async () => {
      const config = await parsePastedConfig(adminKubeconfig ?? '', host.image);
      expect(toClusterAccess(config).client).not.toBeNull();
      const result = await test({ ...config, namespace: `none-${randomUUID()}` });
      expect(result).toMatchObject({ status: 'error', failed: ['workspace'] });
      expect(result.message).toContain('no such namespace');
    },
  );

  it(
    'reports an image that cannot be pulled, and leaves nothing',
    async () => {
      const config = createConfig(host, { image: 'registry.invalid/none:1' });
      const exit = await readExit(runner().run(target(config), createJob(), LIMITS, neverAborted));
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null, cleanup: 'verified' });
      expect(exit.message).toContain('image');
    },
    TEST_MS,
  );

  it(
    'cancels a run while its image is being pulled',
    async () => {
      const config = createConfig(host, { image: 'registry.invalid/none:2' });
      const stop = new AbortController();
      const end = readExit(runner().run(target(config), createJob(), LIMITS, stop.signal));
      await until(
        () => listPodNames(host, serverId),
        (pods) => pods.length > 0,
      );
      stop.abort('cancelled');
      expect(await end).toMatchObject({ cause: 'cancelled', code: null, cleanup: 'verified' });
    },
    TEST_MS,
  );

  it(
    'reports lost, not code 0, for a pod deleted in the cluster',
    async () => {
      const events = runner().run(target(), createJob(), LIMITS, neverAborted);
      await waitUntilReady(events);
      const [pod = ''] = await listPodNames(host, serverId);
      await callCluster(host, 'DELETE', `/api/v1/namespaces/${host.namespace}/pods/${pod}`);
      const exit = await readExit(events);
      expect(exit).toMatchObject({ cause: 'lost', code: null, cleanup: 'verified' });
      expect(exit.message).toContain('deleted');
    },
    TEST_MS,
  );

  it(
    'loses a run on a cluster that stops responding, and cleans it up once the cluster is back',
    async () => {
      const proxy = await startCutProxy(host.clusterUrl);
      const proxied = target(createConfig(host, { cluster_url: proxy.through(host.clusterUrl) }));
      const job = createJob();
      const events = runner().run(proxied, job, LIMITS, neverAborted);
      await waitUntilReady(events);
      proxy.silence();
      expect(await readExit(events)).toMatchObject({ cause: 'lost', code: null, cleanup: 'unverified' });
      proxy.restore();
      expect(await runner().cleanUp(proxied, job.runId)).toBe('verified');
      await proxy.close();
    },
    TEST_MS,
  );

  it(
    'refuses a second run with the same id, and the first continues',
    async () => {
      const job = createJob({
        program: { command: 'echo ready; cat; echo done' },
        stdin: Buffer.from('input'),
      });
      const first = runner().run(target(), createJob({ runId: job.runId }), LIMITS, neverAborted);
      await waitUntilReady(first);
      expect(await readExit(runner().run(target(), job, LIMITS, neverAborted))).toMatchObject({
        cause: 'infrastructure',
      });
      expect(await listPodNames(host, serverId)).toHaveLength(1);
      await first.return();
    },
    TEST_MS,
  );

  it(
    'gives up a pod for which no node has room',
    async () => {
      const manifest = createPodManifest(target(), randomUUID(), { ...LIMITS, cpus: 1 });
      for (const container of manifest.spec?.containers ?? [])
        container.resources = { requests: { cpu: '5000' }, limits: { cpu: '5000' } };
      const pod = createJobPod(api, manifest, 100);
      await expect(pod.start(neverAborted)).rejects.toThrow('no node with enough free resources');
      expect(await pod.remove()).toBe('verified');
    },
    TEST_MS,
  );

  it(
    'reports a run that exceeds its disk limit as evicted',
    async () => {
      const manifest = createPodManifest(target(), randomUUID(), LIMITS);
      for (const volume of manifest.spec?.volumes ?? []) volume.emptyDir = { sizeLimit: '1Mi' };
      const pod = createJobPod(api, manifest);
      await pod.start(neverAborted);
      const command = ['sh', '-c', 'head -c 9000000 /dev/zero >/tmp/much; sleep 600'];
      const exec = await startExec(api, pod.name, command, Buffer.alloc(0), neverAborted);
      for await (const _output of exec.output());
      const exit = await readPodExitWithoutCode(api, pod.name);
      expect(exit).toMatchObject({ cause: 'infrastructure', code: null });
      expect(exit.message).toContain('evicted');
      expect(await pod.remove()).toBe('verified');
    },
    EVICTION_TEST_MS,
  );

  it(
    'removes pods past their deadline, but not those of active runs',
    async () => {
      const events = runner().run(target(), createJob(), LIMITS, neverAborted);
      await waitUntilReady(events);
      expect(await removeExpiredPods(api, serverId, Date.now())).toBe('verified');
      expect(await removeExpiredPods(api, 'another server', Date.now() + 86_400_000)).toBe('verified');
      expect(await listPodNames(host, serverId)).toHaveLength(1);
      expect(await removeExpiredPods(api, serverId, Date.now() + 86_400_000)).toBe('verified');
      expect(await listPodNames(host, serverId)).toEqual([]);
      await events.return();
    },
    TEST_MS,
  );
});
