import { afterAll, beforeAll } from '@jest/globals';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { Dialer } from '../../../src/lib/net/dialer.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import type { Runner, TargetServer } from '../../../src/runners/runner.ts';
import { createSshRunner } from '../../../src/runners/ssh/index.ts';
import { localDialer, withParsedConfig, serverAt } from '../../lib/ssh/servers.ts';
import { startCutProxy, type CutProxy } from '../../support/cut-proxy.ts';
import { describeOn, sshHosts } from '../../support/hosts.ts';
import { describeRunnerContract } from '../contract.ts';

describeOn('ssh', 'the SSH runner', () => {
  const hosts = sshHosts();
  const runIds: string[] = [];
  let dialer: Dialer;
  let proxy: CutProxy;
  beforeAll(async () => {
    dialer = localDialer();
    proxy = await startCutProxy(`http://${hosts.plain.host}:${hosts.plain.port}`);
  });
  afterAll(async () => {
    await dialer.close();
    await proxy.close();
  });

  const target = (): TargetServer => ({
    ...withParsedConfig(serverAt(hosts.plain, {}, { serverId: 'plain' })),
    ...NO_WORKSPACE,
  });

  describeRunnerContract({
    createRunner: () =>
      recordingRunIds(createSshRunner({ connections: createSshConnections({ dialer }) }), runIds),
    target,
    capabilities: {
      languages: ['python', 'javascript', 'bash'],
      enforces: { memoryBytes: false, cpus: false, pids: false, none: false, any: true },
      reportsSignals: true,
      verifiesOrphans: false,
    },
    missingInterpreter: { language: 'python', env: { PATH: '/nowhere' } },
    listLeaks: () => findLeaks(runIds),
    outage: {
      target: () => {
        const { hostname, port } = new URL(proxy.url);
        const { hostKey } = hosts.plain;
        const server = serverAt({ host: hostname, port: Number(port), hostKey }, {}, { serverId: 'proxied' });
        return { ...withParsedConfig(server), ...NO_WORKSPACE };
      },
      begin: () => proxy.cut(),
      end: () => proxy.restore(),
    },
  });
});

const NO_WORKSPACE = { workspacePath: null, jumpServers: new Map<string, never>() };

/** Records the run ids of a runner, to tell its leaks from those of other tests. */
function recordingRunIds<Config>(runner: Runner<Config>, runIds: string[]): Runner<Config> {
  return {
    ...runner,
    run(target, job, limits, signal) {
      runIds.push(job.runId);
      return runner.run(target, job, limits, signal);
    },
  };
}

/** The folders, supervisors and watchers that ended runs left. */
function findLeaks(runIds: readonly string[]): string[] {
  const folders = runIds.map((id) => `/tmp/ops-run-${id}`).filter((folder) => existsSync(folder));
  const watchers = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => readCommandLine(pid))
    .filter((line) => /ops-(supervise|watch)/.test(line) && runIds.some((id) => line.includes(id)));
  return [...folders, ...watchers];
}

function readCommandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return '';
  }
}
