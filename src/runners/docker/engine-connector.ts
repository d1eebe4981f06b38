import { createTlsConnector, type Connector } from '../../lib/net/tls-connector.ts';
import type { Dialer } from '../../lib/net/dialer.ts';
import type { SshConnections } from '../../lib/ssh/connections.ts';
import type { TargetServer } from '../runner.ts';
import { toEngineConnection, type DockerConfig } from './config.ts';
import { openDialStream } from './dial-stream.ts';
import { DockerError } from './errors.ts';

export interface EngineDeps {
  dialer: Dialer;
  ssh: Pick<SshConnections, 'openExecStream' | 'release'>;
}

/**
 * Opens one connection to the engine. Never uses the Docker socket of this machine or environment variables.
 */
export function createEngineConnector(
  target: TargetServer<DockerConfig>,
  { dialer, ssh }: EngineDeps,
): Connector {
  const route = toEngineConnection(target.config);
  if (route.kind === 'tls') {
    const { host, port, ca, client } = route;
    return createTlsConnector(dialer, { host, port, tls: { ca, client } });
  }
  const server = target.jumpServers.get(route.serverId);
  return async (signal) => {
    if (server?.owner !== target.owner)
      throw new DockerError('The SSH server in host is not one of yours any more: choose another.');
    return await openDialStream(ssh, server, target, signal);
  };
}
