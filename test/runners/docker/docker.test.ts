import { afterAll, beforeAll } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import type { Dialer } from '../../../src/lib/net/dialer.ts';
import { createLog } from '../../../src/lib/log.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { createDockerRunner } from '../../../src/runners/docker/index.ts';
import { localDialer } from '../../lib/ssh/servers.ts';
import { startCutProxy, type CutProxy } from '../../support/cut-proxy.ts';
import { describeOn, dockerHost } from '../../support/hosts.ts';
import { describeRunnerContract } from '../contract.ts';
import { createConfig, listContainers, createTarget } from './test-engine.ts';

describeOn('docker', 'the Docker runner', () => {
  const host = dockerHost();
  const serverId = randomUUID();
  let dialer: Dialer;
  let proxy: CutProxy;

  beforeAll(async () => {
    dialer = localDialer();
    proxy = await startCutProxy(host.host.replace('tcp:', 'http:'));
  });
  describeRunnerContract({
    createRunner: () => {
      const ssh = createSshConnections({ dialer });
      return createDockerRunner({ dialer, ssh, log: createLog('silent') });
    },
    target: () => createTarget(createConfig(host), { serverId }),
    capabilities: {
      languages: ['python', 'javascript', 'bash'],
      enforces: { memoryBytes: true, cpus: true, pids: true, none: true, any: true },
      reportsSignals: true,
    },
    missingInterpreter: {
      target: () =>
        createTarget(createConfig(host, { image: host.smallImage }), { serverId: `${serverId}-small` }),
      language: 'python',
    },
    listLeaks: async () => {
      const containers = await listContainers(host, serverId);
      return containers.filter(({ purpose }) => purpose !== 'warm').map(({ name }) => name);
    },
    outage: {
      target: () =>
        createTarget(createConfig(host, { host: proxy.url.replace('http:', 'tcp:') }), {
          serverId: `${serverId}-proxy`,
        }),
      begin: () => {
        proxy.cut();
      },
      end: () => {
        proxy.restore();
      },
    },
  });

  // Runs after the suite's own hook, which closes the runners.
  afterAll(async () => {
    await dialer.close();
    await proxy.close();
  });
});
