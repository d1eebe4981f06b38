import { afterAll, beforeAll } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import type { Dialer } from '../../../src/lib/net/dialer.ts';
import { createKubernetesRunner } from '../../../src/runners/kubernetes/index.ts';
import { startCutProxy, type CutProxy } from '../../support/cut-proxy.ts';
import { describeOn } from '../../support/hosts.ts';
import { describeRunnerContract } from '../contract.ts';
import { getCluster, createConfig, localDialer, listPodNames, createTarget } from './test-cluster.ts';

describeOn('kubernetes', 'the Kubernetes runner', () => {
  const host = getCluster();
  const serverId = randomUUID();
  let dialer: Dialer;
  let proxy: CutProxy;

  beforeAll(async () => {
    dialer = localDialer();
    proxy = await startCutProxy(host.clusterUrl);
  });
  afterAll(async () => {
    await proxy.close();
    await dialer.close();
  });

  const image = host.languagesImage ?? host.image;
  const target = () => createTarget(serverId, createConfig(host, { image }));

  describeRunnerContract({
    createRunner: () => createKubernetesRunner({ dialer }),
    target,
    capabilities: {
      languages: host.languagesImage === undefined ? [] : ['python', 'javascript', 'bash'],
      enforces: { memoryBytes: true, cpus: true, pids: false, none: false, any: true },
      reportsSignals: true,
    },
    missingInterpreter: { target: () => createTarget(serverId, createConfig(host)), language: 'python' },
    listLeaks: () => listPodNames(host, serverId),
    outage: {
      target: () =>
        createTarget(serverId, createConfig(host, { image, cluster_url: proxy.through(host.clusterUrl) })),
      begin: () => {
        proxy.cut();
      },
      end: () => {
        proxy.restore();
      },
    },
    testTimeoutMs: 120_000,
  });
});
