import type { Duplex } from 'node:stream';
import type { Dialer } from '../../lib/net/dialer.ts';
import { isAppError } from '../../lib/errors.ts';
import { findTlsErrorReason } from '../../lib/net/tls-connector.ts';
import type { DedicatedSshConnection, SshConnections } from '../../lib/ssh/connections.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { TestStageName, TargetServer } from '../runner.ts';
import { createTlsStages, type TestStep } from '../test-stages.ts';
import { toEngineConnection, type DockerConfig } from './config.ts';
import { createEngineWithConnector, type Engine } from './engine.ts';
import { createEngineConnector } from './engine-connector.ts';
import { DockerError } from './errors.ts';

export interface DockerConnectionDeps {
  dialer: Dialer;
  ssh: Pick<SshConnections, 'openExecStream' | 'release' | 'connect'>;
}

/** Test stages that connect to an engine. The engine may be used once they have passed. */
export interface ConnectionStages {
  steps: readonly TestStep[];
  engine: Engine;
  close(): void;
}

/** The engine reuses the connection of the stages as its first. */
export function createTlsConnectionStages(
  target: TargetServer<DockerConfig>,
  deps: DockerConnectionDeps,
): ConnectionStages {
  const route = toEngineConnection(target.config);
  if (route.kind !== 'tls') throw new Error('the engine is not reached by TLS');
  const { host, port, ca, client } = route;
  const connect = createEngineConnector(target, deps);
  let firstConnection: Duplex | undefined;
  const tlsStages = createTlsStages(deps.dialer, { host, port, tls: { ca, client } }, (connection) => {
    firstConnection = connection;
  });
  const engine = createEngineWithConnector(async (signal) => {
    const ready = firstConnection;
    firstConnection = undefined;
    return ready ?? (await connect(signal));
  }, route);
  return {
    steps: [...tlsStages.steps, ['authentication', (signal) => checkAuthentication(engine, signal)]],
    engine,
    close() {
      engine.close();
      tlsStages.close();
    },
  };
}

/**
 * With TLS 1.3 the engine checks the client certificate after the handshake, and some engines just close the
 * connection.
 */
async function checkAuthentication(engine: Engine, signal: AbortSignal): Promise<string> {
  try {
    await engine.ping(signal);
  } catch (error) {
    const isClosed = isAppError(error, 'upstream_unreachable') && findTlsErrorReason(error) === undefined;
    if (!isClosed) throw error;
    throw new DockerError(
      'The engine closed the connection: check that its --tlscacert holds the authority of client_cert.',
    );
  }
  return 'The engine accepts the client certificate.';
}

/** The stages of the SSH server, over a connection that is not shared. */
export function createSshConnectionStages(
  target: TargetServer<DockerConfig>,
  deps: DockerConnectionDeps,
): ConnectionStages {
  const route = toEngineConnection(target.config);
  const server = route.kind === 'ssh' ? target.jumpServers.get(route.serverId) : undefined;
  const engine = createEngineWithConnector(createEngineConnector(target, deps), { host: 'docker', port: 80 });
  let connection: DedicatedSshConnection | undefined;
  const passed = new Set<TestStageName>();
  let connecting: Promise<void> | undefined;

  async function connect(signal: AbortSignal): Promise<void> {
    if (server?.owner !== target.owner)
      throw new DockerError('The SSH server in host is not one of yours any more: choose another.');
    connection = await deps.ssh.connect(server, signal, (stage) => passed.add(stage));
  }

  /** One connection attempt covers all stages. It fails in the first stage that has not passed. */
  function createStep(name: TestStageName): TestStep {
    return [
      name,
      async (signal) => {
        connecting ??= connect(signal);
        await connecting.catch((error: unknown) => {
          const isLater = error instanceof SshError ? error.stage !== name && passed.has(name) : false;
          if (!isLater) throw error;
        });
      },
    ];
  }

  return {
    steps: [createStep('policy'), createStep('tcp'), createStep('host_key'), createStep('authentication')],
    engine,
    close() {
      engine.close();
      connection?.close();
    },
  };
}
