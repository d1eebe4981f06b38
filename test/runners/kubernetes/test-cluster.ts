import { request } from 'node:https';
import { createDialer, type Dialer } from '../../../src/lib/net/dialer.ts';
import { kubernetesConfig, type KubernetesConfig } from '../../../src/runners/kubernetes/config.ts';
import { toLabelValue, LABELS } from '../../../src/runners/kubernetes/object-names.ts';
import type { TargetServer } from '../../../src/runners/runner.ts';
import { kubernetesHost, type KubernetesHost } from '../../support/hosts.ts';

/** Only within `describeOn('kubernetes', ...)`. */
export function getCluster(): KubernetesHost {
  const host = kubernetesHost();
  if (host === undefined) throw new Error('no cluster: call this only within describeOn');
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

/** Parsed configuration with address and token. */
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
    setup: null,
    ...changes,
  };
}

export function createTarget(serverId: string, config: KubernetesConfig): TargetServer<KubernetesConfig> {
  return {
    ...{ serverId, owner: 'user:1', version: 1, config },
    ...{ hostKey: null, workspacePath: null, jumpServers: new Map<string, TargetServer>() },
  };
}

/** Parsed configuration with a kubeconfig, as it is parsed before it is stored. */
export async function parsePastedConfig(kubeconfig: string, image: string): Promise<KubernetesConfig> {
  return await kubernetesConfig.parseAsync({ kubeconfig, image });
}

/** Calls the cluster directly, without the code under test. */
export function callCluster(
  host: KubernetesHost,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const url = new URL(path, host.clusterUrl);
    const headers = { authorization: `Bearer ${host.token}`, 'content-type': 'application/json' };
    const outgoing = request(url, { method, headers, ca: host.caCert, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        resolve(JSON.parse(Buffer.concat(chunks).toString()));
      });
    });
    outgoing.on('error', reject);
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

interface PodList {
  items: { metadata: { name: string; labels?: Record<string, string> } }[];
}

/** Lists the names of a server's pods that still exist. */
export async function listPodNames(host: KubernetesHost, serverId: string): Promise<string[]> {
  const path = `/api/v1/namespaces/${host.namespace}/pods`;
  const { items } = (await callCluster(host, 'GET', path)) as PodList;
  return items
    .filter(({ metadata }) => metadata.labels?.[LABELS.server] === toLabelValue(serverId))
    .map(({ metadata }) => metadata.name);
}
