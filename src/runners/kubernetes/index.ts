import type { Dialer } from '../../lib/net/dialer.ts';
import { createClusterApi, type ClusterApi } from './api.ts';
import { toClusterAccess, kubernetesConfig, type KubernetesConfig } from './config.ts';
import { ClusterError } from './errors.ts';
import { removeRunPods, removeExpiredPods } from './cleanup.ts';
import { runPod } from './run.ts';
import { testCluster } from './staged-test.ts';
import type { Limits, OptionalLimit, Runner, TargetServer } from '../runner.ts';
import { runWithSetup } from '../setup.ts';
import { getInterpreter, missingInImageMessage } from '../shell.ts';

const HEARTBEAT_MS = 10_000;
const CLEANUP_INTERVAL_MS = 60 * 60_000;

export interface KubernetesRunnerDeps {
  dialer: Dialer;
  /** Interval of checks that a run's pod still exists; for tests. */
  heartbeatMs?: number;
}

/**
 * Runs each job in its own bare pod, in one namespace of a user's cluster. All connections (requests, command
 * streams, watches) go through the dialer. Environment variables, files of this machine and programs of a
 * kubeconfig are never used.
 */
export function createKubernetesRunner(deps: KubernetesRunnerDeps): Runner<KubernetesConfig> {
  const { dialer, heartbeatMs = HEARTBEAT_MS } = deps;
  const openApis = new Set<ClusterApi>();

  /** Each run has its own connections, which close at its end. None is shared between owners. */
  function openApi(config: KubernetesConfig): ClusterApi & AsyncDisposable {
    const api = createClusterApi(dialer, toClusterAccess(config));
    openApis.add(api);
    return {
      ...api,
      async [Symbol.asyncDispose]() {
        openApis.delete(api);
        await api.close();
      },
    };
  }

  const lastCleanupMs = new Map<string, number>();

  /** Runs in parallel with a job, because pods left by ended instances do not block it. */
  async function removeExpiredHourly(target: TargetServer<KubernetesConfig>): Promise<void> {
    const nowMs = Date.now();
    if (nowMs - (lastCleanupMs.get(target.serverId) ?? 0) < CLEANUP_INTERVAL_MS) return;
    lastCleanupMs.set(target.serverId, nowMs);
    await using api = openApi(target.config);
    // The run fails for the same reason and reports it.
    await removeExpiredPods(api, target.serverId, nowMs).catch(() => undefined);
  }

  return {
    type: 'kubernetes',
    config: kubernetesConfig,
    secretFields: ['service_account_token', 'kubeconfig', 'setup'],
    destination(config) {
      const { server, ca, namespace } = toClusterAccess(config);
      const { setup, image } = config;
      const address = { type: 'kubernetes', server: server.href, ca, namespace };
      // Code in the image can read the set-up.
      return { ...address, ...(setup !== null && { image }) };
    },
    jumpServerIds: () => [],
    needsHostKey: false,
    unenforceableLimits: (_config, limits) => listUnenforceableLimits(limits),
    async test(target, signal) {
      await using api = openApi(target.config);
      return await testCluster(dialer, api, target, signal);
    },
    async *run(target, job, limits, signal) {
      removeExpiredHourly(target).catch(() => undefined);
      await using api = openApi(target.config);
      const { image, setup: line } = target.config;
      const missing = missingInImageMessage(image, getInterpreter(job.program).names[0]);
      yield* runWithSetup(line, missing, (setup) =>
        runPod(api, { target, job, limits, signal, heartbeatMs, setup }),
      );
    },
    async cleanUp(target, runId) {
      await using api = openApi(target.config);
      return await removeRunPods(api, runId).catch((error: unknown) => {
        if (error instanceof ClusterError) return 'unverified';
        throw error;
      });
    },
    release(serverId) {
      lastCleanupMs.delete(serverId);
      return Promise.resolve();
    },
    // No connection is open after its run.
    releaseOwner: () => Promise.resolve(),
    listOwners: () => [],
    async close() {
      await Promise.all([...openApis].map((api) => api.close()));
    },
  };
}

/**
 * Only kubelet's own configuration limits the processes of a pod. Many clusters accept a NetworkPolicy
 * without enforcing it, which cannot be detected from here.
 */
function listUnenforceableLimits({ pids, network }: Limits): OptionalLimit[] {
  return [...(pids === null ? [] : ['pids' as const]), ...(network === 'none' ? ['network' as const] : [])];
}
