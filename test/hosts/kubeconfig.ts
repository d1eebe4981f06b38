import { KubeConfig, VersionApi } from '@kubernetes/client-node';
import { readFileSync } from 'node:fs';

/** The account of a kubeconfig, and the version of its cluster. */
export interface KubernetesAccount {
  clusterUrl: string;
  /** PEM text. */
  caCert: string;
  namespace: string;
  token: string;
  version: string;
}

/** Reads a kubeconfig with a token, and reads the version of the cluster. */
async function readAccount(file: string): Promise<KubernetesAccount> {
  const config = new KubeConfig();
  config.loadFromFile(file);
  const cluster = config.getCurrentCluster();
  const token = config.getCurrentUser()?.token;
  if (cluster === null || token === undefined)
    throw new Error(`${file} must name a cluster, and a user with a token, in its current context`);
  const { gitVersion } = await config.makeApiClient(VersionApi).getCode();
  return {
    clusterUrl: cluster.server,
    caCert: certificateOf(cluster),
    namespace: config.getContextObject(config.getCurrentContext())?.namespace ?? 'default',
    ...{ token, version: gitVersion },
  };
}

function certificateOf(cluster: { caData?: string; caFile?: string }): string {
  if (cluster.caData !== undefined) return Buffer.from(cluster.caData, 'base64').toString('utf8');
  return cluster.caFile === undefined ? '' : readFileSync(cluster.caFile, 'utf8');
}

process.stdout.write(JSON.stringify(await readAccount(process.argv[2] ?? '')));
