import { createTlsConnector, type Connector, type ConnectorStream } from '../../lib/net/tls-connector.ts';
import type { Dialer } from '../../lib/net/dialer.ts';
import type { ExecStream, SshConnections } from '../../lib/ssh/connections.ts';
import type { TargetServer } from '../runner.ts';
import { toEngineConnection, type DockerConfig } from './config.ts';
import { createDialError } from './dial-error.ts';
import { DockerError } from './errors.ts';

export interface EngineDeps {
  dialer: Dialer;
  ssh: Pick<SshConnections, 'openExecStream' | 'release'>;
}

/** Forwards its standard input and output to the engine. Docker has it from 18.09 on. */
const DIAL_COMMAND = 'docker system dial-stdio';
/** The end of the output and that of the error output arrive together. */
const EXIT_TIMEOUT_MS = 1_000;
const UNKNOWN_RESULT = { code: null, stderr: '' };

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
    const stream = await ssh.openExecStream(server, DIAL_COMMAND, signal);
    return explainEnd(stream, target, () => ssh.release(server.serverId));
  };
}

/**
 * Adds the reason why the program ended if it printed nothing. Then the connection to the SSH server is not used again:
 * the account's new groups and variables count for new connections only.
 */
function explainEnd(
  stream: ExecStream,
  target: TargetServer<DockerConfig>,
  onFailure: () => void,
): ConnectorStream {
  let hasOutput = false;
  stream.once('data', () => {
    hasOutput = true;
  });
  // Adding the listener has started to read.
  stream.pause();
  return Object.assign(stream, {
    async findEndError() {
      if (hasOutput) return undefined;
      const timeout = Promise.withResolvers<undefined>();
      const timer = setTimeout(timeout.resolve, EXIT_TIMEOUT_MS, undefined);
      const result = await Promise.race([stream.ended, timeout.promise]);
      clearTimeout(timer);
      onFailure();
      return createDialError(result ?? UNKNOWN_RESULT, target);
    },
  });
}
