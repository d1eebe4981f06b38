import type { Dialer } from '../../lib/net/dialer.ts';
import { createClusterApi, type ClusterApi } from './api.ts';
import { toClusterAccess, kubernetesConfig, type KubernetesConfig } from './config.ts';
import { ClusterError } from './errors.ts';
import { removeRunPods, removeExpiredPods } from './cleanup.ts';
import { runPod } from './run.ts';
import { testCluster } from './staged-test.ts';
import type { Limits, OptionalLimit, Runner, TargetServer } from '../runner.ts';

const HEARTBEAT_MS = 10_000;
const CLEANUP_INTERVAL_MS = 60 * 60_000;

export interface KubernetesRunnerDeps {
  dialer: Dialer;
  /** How often it is looked whether the pod of a run is still there; for tests. */
  heartbeatMs?: number;
}

/**
 * Runs each job in a bare pod of its own, in one namespace of a user's cluster. Requests, the command's stream and
 * the end of the pod go through the dialer; nothing of the environment, of this machine's files or of a kubeconfig's
 * programs is used.
 */
export function createKubernetesRunner(deps: KubernetesRunnerDeps): Runner<KubernetesConfig> {
  const { dialer, heartbeatMs = HEARTBEAT_MS } = deps;
  const openApis = new Set<ClusterApi>();

  /** Each run has connections of its own: none is shared between owners, and each ends with its run. */
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

  /** Beside a run, not before it: what instances that died have left is in nobody's way. */
  async function removeExpiredHourly(target: TargetServer<KubernetesConfig>): Promise<void> {
    const nowMs = Date.now();
    if (nowMs - (lastCleanupMs.get(target.serverId) ?? 0) < CLEANUP_INTERVAL_MS) return;
    lastCleanupMs.set(target.serverId, nowMs);
    await using api = openApi(target.config);
    // What fails here fails in the run as well, and is said there.
    await removeExpiredPods(api, target.serverId, nowMs).catch(() => undefined);
  }

  return {
    type: 'kubernetes',
    config: kubernetesConfig,
    secretFields: ['service_account_token', 'kubeconfig'],
    destination(config) {
      const { server, ca, namespace } = toClusterAccess(config);
      return { type: 'kubernetes', server: server.href, ca, namespace };
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
      yield* runPod(api, { target, job, limits, signal, heartbeatMs });
    },
    async cleanUp(target, runId) {
      await using api = openApi(target.config);
      return await removeRunPods(api, runId).catch((error: unknown) => {
        if (error instanceof ClusterError) return 'unverified';
        throw error;
      });
    },
    forget(serverId) {
      lastCleanupMs.delete(serverId);
      return Promise.resolve();
    },
    async close() {
      await Promise.all([...openApis].map((api) => api.close()));
    },
  };
}

/**
 * How many processes a pod may have is for kubelet's own configuration to say; and a NetworkPolicy is an object that
 * many clusters accept and do not enforce, which nobody can see from here.
 */
function listUnenforceableLimits({ pids, network }: Limits): OptionalLimit[] {
  return [...(pids === null ? [] : ['pids' as const]), ...(network === 'none' ? ['network' as const] : [])];
}
