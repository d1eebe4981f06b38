import { describe, expect, it } from '@jest/globals';
import { createKubernetesRunner } from '../../../src/runners/kubernetes/index.ts';
import { kubernetesConfig } from '../../../src/runners/kubernetes/config.ts';
import { createPodManifest } from '../../../src/runners/kubernetes/manifest.ts';
import { toPodName } from '../../../src/runners/kubernetes/object-names.ts';
import {
  hasEnded,
  isRunning,
  isUnschedulable,
  PodState,
  wasOomKilled,
  findStartFailure,
} from '../../../src/runners/kubernetes/pod-state.ts';
import type { Limits } from '../../../src/runners/runner.ts';
import { localDialer, createTarget } from './test-cluster.ts';

const CONFIG = kubernetesConfig.parse({
  cluster_url: 'https://cluster.example.com',
  namespace: 'jobs',
  service_account_token: 'a-token',
  image: 'image:1',
});
const LIMITS: Limits = {
  timeoutMs: 60_000,
  maxOutputBytes: 1000,
  ...{ memoryBytes: null, cpus: null, pids: null, network: null },
};

function createSpec(limits: Partial<Limits> = {}) {
  const spec = createPodManifest(createTarget('server', CONFIG), 'run', { ...LIMITS, ...limits }).spec;
  const container = spec?.containers[0];
  if (spec === undefined || container === undefined) throw new Error('the manifest has no container');
  return { spec, container };
}

describe('the pod of a run', () => {
  it('meets the Pod Security Standard "restricted", and has no token of the cluster', () => {
    const { spec, container } = createSpec();
    expect(spec).toMatchObject({
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      securityContext: { runAsNonRoot: true, runAsUser: 10_001, seccompProfile: { type: 'RuntimeDefault' } },
    });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
    expect(spec.volumes?.map((volume) => Object.keys(volume).filter((key) => key !== 'name'))).toEqual([
      ['emptyDir'],
      ['emptyDir'],
    ]);
  });

  it('is never restarted, and ends at its deadline without the app', () => {
    const { spec } = createSpec({ timeoutMs: 90_000 });
    expect(spec).toMatchObject({ restartPolicy: 'Never', terminationGracePeriodSeconds: 0 });
    expect(spec.activeDeadlineSeconds).toBeGreaterThan(90);
    expect(spec.activeDeadlineSeconds).toBeLessThanOrEqual(90 + 300);
  });

  it('has limits even if none are requested, and requests no more than they allow', () => {
    expect(createSpec().container.resources).toEqual({
      requests: { memory: '67108864', cpu: '50m', 'ephemeral-storage': '16Mi' },
      limits: { memory: '536870912', cpu: '1000m', 'ephemeral-storage': '1Gi' },
    });
    const small = createSpec({ memoryBytes: 1_000_000, cpus: 0.02 }).container.resources;
    expect(small?.requests).toMatchObject({ memory: '1000000', cpu: '20m' });
    expect(small?.limits).toMatchObject({ memory: '1000000', cpu: '20m' });
  });

  it('has valid names and labels for any ids, and does not reveal the ids', () => {
    const target = { ...createTarget('server/../$(id)', CONFIG), owner: 'user:ö' as const };
    const { metadata } = createPodManifest(target, 'Run "1"\n', LIMITS);
    expect(metadata?.name).toMatch(/^[a-z0-9-]{1,63}$/);
    for (const value of Object.values(metadata?.labels ?? {})) expect(value).toMatch(/^[a-z0-9-]{1,63}$/);
    expect(toPodName('a')).not.toBe(toPodName('b'));
  });

  it('does not contain the program, whose text is sent only to the run', () => {
    expect(JSON.stringify(createPodManifest(createTarget('server', CONFIG), 'run', LIMITS))).not.toContain(
      'program',
    );
  });
});

describe('limits of a pod', () => {
  it('are unenforceable for processes and the network, and enforceable otherwise', async () => {
    const dialer = localDialer();
    const runner = createKubernetesRunner({ dialer });
    const all: Limits = { ...LIMITS, memoryBytes: 1, cpus: 1, pids: 1, network: 'none' };
    expect(runner.unenforceableLimits(CONFIG, all)).toEqual(['pids', 'network']);
    expect(runner.unenforceableLimits(CONFIG, { ...LIMITS, network: 'any' })).toEqual([]);
    await dialer.close();
  });
});

describe('the state of a pod', () => {
  const pod = (status: object, metadata: object = {}) =>
    PodState.parse({ metadata: { name: 'pod', resourceVersion: '1', ...metadata }, status });
  const waiting = (reason: string) => pod({ containerStatuses: [{ state: { waiting: { reason } } }] });

  it('is a start failure for reasons that waiting does not resolve', () => {
    for (const reason of ['ImagePullBackOff', 'InvalidImageName', 'ErrImageNeverPull'])
      expect(findStartFailure(waiting(reason), 'small:1')).toContain('image small:1');
    for (const reason of ['CreateContainerConfigError', 'CreateContainerError', 'RunContainerError'])
      expect(findStartFailure(waiting(reason), 'small:1')).toContain('container');
    expect(findStartFailure(pod({ phase: 'Failed', reason: 'Evicted' }), 'small:1')).toContain('evicted');
    expect(findStartFailure(pod({ phase: 'Failed' }), 'small:1')).toMatch(/image small:1.*shell/);
  });

  it('is not a start failure while the image is pulled, or for unknown reasons', () => {
    for (const reason of ['ContainerCreating', 'PodInitializing', 'ErrImagePull', 'constructor', 'toString'])
      expect(findStartFailure(waiting(reason), 'small:1')).toBeUndefined();
    expect(findStartFailure(pod({ phase: 'Pending' }), 'small:1')).toBeUndefined();
  });

  it('is read from its container and its conditions', () => {
    const running = { phase: 'Running', containerStatuses: [{ state: { running: { startedAt: 'now' } } }] };
    expect(isRunning(pod(running))).toBe(true);
    expect(isRunning(pod(running, { deletionTimestamp: 'now' }))).toBe(false);
    expect(hasEnded(pod(running))).toBe(false);
    const killed = { state: { terminated: { exitCode: 137, reason: 'OOMKilled' } } };
    expect(hasEnded(pod({ containerStatuses: [killed] }))).toBe(true);
    expect(wasOomKilled(pod({ containerStatuses: [killed] }))).toBe(true);
    const condition = { type: 'PodScheduled', status: 'False', reason: 'Unschedulable' };
    expect(isUnschedulable(pod({ conditions: [condition] }))).toBe(true);
    expect(isUnschedulable(pod({ conditions: [{ ...condition, reason: 'SchedulingGated' }] }))).toBe(false);
  });
});
