import { request } from 'node:https';
import { createDialer, type Dialer } from '../../../src/lib/net/dialer.ts';
import { kubernetesConfig, type KubernetesConfig } from '../../../src/runners/kubernetes/config.ts';
import { toLabelValue, LABELS } from '../../../src/runners/kubernetes/object-names.ts';
import type { TargetServer } from '../../../src/runners/runner.ts';
import { kubernetesHost, type KubernetesHost } from '../../support/hosts.ts';

/** Only within `describeOn('kubernetes', ...)`. */
export function getCluster(): KubernetesHost {
  const host = kubernetesHost();
  if (host === undefined) throw new Error('describeOn has let a test through without a cluster');
  return host;
}

/** A dialer that may reach loopback. */
export function localDialer(): Dialer {
  return createDialer({
    mode: 'local',
    allow: undefined,
    deny: [],
    forbidden: () => [],
    connectTimeoutMs: 5_000,
  });
}

/** The configuration by address and token, as it was read. */
export function createConfig(
  host: KubernetesHost,
  changes: Partial<KubernetesConfig> = {},
): KubernetesConfig {
  return {
    cluster_url: host.clusterUrl,
    ca_cert: host.caCert,
    namespace: host.namespace,
    service_account_token: host.token,
    kubeconfig: null,
    image: host.image,
    ...changes,
  };
}

export function createTarget(serverId: string, config: KubernetesConfig): TargetServer<KubernetesConfig> {
  return {
    ...{ serverId, owner: 'user:1', version: 1, config },
    ...{ hostKey: null, workspacePath: null, jumpServers: new Map<string, TargetServer>() },
  };
}

/** The configuration by kubeconfig, read as it would be when it is saved. */
export async function parsePastedConfig(kubeconfig: string, image: string): Promise<KubernetesConfig> {
  return await kubernetesConfig.parseAsync({ kubeconfig, image });
}

/** Asks the cluster by other code than the product's. */
export function callCluster(
  host: KubernetesHost,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const url = new URL(path, host.clusterUrl);
    const headers = { authorization: `Bearer ${host.token}`, 'content-type': 'application/json' };
    const asking = request(url, { method, headers, ca: host.caCert, agent: false }, (answer) => {
      const pieces: Buffer[] = [];
      answer.on('data', (piece: Buffer) => pieces.push(piece));
      answer.on('end', () => {
        resolve(JSON.parse(Buffer.concat(pieces).toString()));
      });
    });
    asking.on('error', reject);
    asking.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

interface PodList {
  items: { metadata: { name: string; labels?: Record<string, string> } }[];
}

/** The names of the pods that the product has made for a server, and that are still listed. */
export async function listPodNames(host: KubernetesHost, serverId: string): Promise<string[]> {
  const path = `/api/v1/namespaces/${host.namespace}/pods`;
  const { items } = (await callCluster(host, 'GET', path)) as PodList;
  return items
    .filter(({ metadata }) => metadata.labels?.[LABELS.server] === toLabelValue(serverId))
    .map(({ metadata }) => metadata.name);
}
