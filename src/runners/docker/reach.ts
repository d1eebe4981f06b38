import type { Dialer } from '../../lib/dialer.ts';
import { isAppError } from '../../lib/errors.ts';
import { createTlsStarter, tlsFault } from '../../lib/guarded-agent.ts';
import type { SoleConnection, SshConnections } from '../../lib/ssh/connections.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { StageName, Target } from '../runner.ts';
import { routeOf, type DockerConfig } from './config.ts';
import { createEngineOver, createConnector, type Engine } from './engine.ts';
import { DockerFault } from './faults.ts';
import type { Step } from './steps.ts';

export interface ReachDeps {
  dialer: Dialer;
  ssh: Pick<SshConnections, 'openExec' | 'connect'>;
}

/** A way to an engine, in the stages of a test. Its engine may be used when they are passed. */
export interface Reach {
  steps: readonly Step[];
  engine: Engine;
  close(): void;
}

const PASSED = {
  policy: 'The address may be reached from here.',
  tcp: 'The server accepts connections.',
  tls: 'The certificate of the engine is the right one.',
  host_key: 'The SSH server has the confirmed host key.',
  authentication: 'The SSH server accepts the sign-in.',
};

/** The connection that the stages made is the engine's first. */
export function reachByTls(target: Target<DockerConfig>, deps: ReachDeps): Reach {
  const route = routeOf(target.config);
  if (route.kind !== 'tls') throw new Error('not by TLS');
  const { host, port, ca, client } = route;
  const secure = createTlsStarter({ host, tls: { ca, client } });
  const connect = createConnector(target, deps);
  let dialling: ReturnType<Dialer['connect']> | undefined;
  let first: Awaited<ReturnType<typeof secure>> | undefined;
  const dial = (signal: AbortSignal) => (dialling ??= deps.dialer.connect(host, port, signal));
  const engine = createEngineOver(async (signal) => {
    const ready = first;
    first = undefined;
    return ready ?? (await connect(signal));
  }, route);
  const steps: Step[] = [
    [
      'policy',
      async (signal) => {
        await dial(signal).catch((error: unknown) => {
          if (isAppError(error, 'endpoint_forbidden')) throw error;
        });
        return PASSED.policy;
      },
    ],
    ['tcp', async (signal) => dial(signal).then(() => PASSED.tcp)],
    [
      'tls',
      async (signal) => {
        first = await secure(await dial(signal), signal);
        return PASSED.tls;
      },
    ],
    ['authentication', (signal) => authenticate(engine, signal)],
  ];
  return {
    steps,
    engine,
    close() {
      engine.close();
      first?.destroy();
      dialling?.then((socket) => socket.destroy()).catch(() => undefined);
    },
  };
}

/** With TLS 1.3 the engine looks at the certificate after the handshake, and some engines just close. */
async function authenticate(engine: Engine, signal: AbortSignal): Promise<string> {
  try {
    await engine.ping(signal);
  } catch (error) {
    const isClosed = isAppError(error, 'upstream_unreachable') && tlsFault(error) === undefined;
    if (!isClosed) throw error;
    throw new DockerFault('The engine closed the connection: it may not know the authority of client_cert.');
  }
  return 'The engine accepts the client certificate.';
}

/** The stages are those of the SSH server, made over a connection that is not shared. */
export function reachBySsh(target: Target<DockerConfig>, deps: ReachDeps): Reach {
  const route = routeOf(target.config);
  const server = route.kind === 'ssh' ? target.references.get(route.serverId) : undefined;
  const engine = createEngineOver(createConnector(target, deps), { host: 'docker', port: 80 });
  let connection: SoleConnection | undefined;
  const passed = new Set<StageName>();
  let connecting: Promise<void> | undefined;

  async function connect(signal: AbortSignal): Promise<void> {
    if (server?.owner !== target.owner)
      throw new DockerFault('The SSH server in host is not one of yours any more.');
    connection = await deps.ssh.connect(server, signal, (stage) => passed.add(stage));
  }

  /** All are passed by one connecting; it fails in the first that was not passed. */
  function step(name: keyof typeof PASSED): Step {
    return [
      name,
      async (signal) => {
        connecting ??= connect(signal);
        await connecting.catch((error: unknown) => {
          const isLater = error instanceof SshError ? error.stage !== name && passed.has(name) : false;
          if (!isLater) throw error;
        });
        return PASSED[name];
      },
    ];
  }

  return {
    steps: [step('policy'), step('tcp'), step('host_key'), step('authentication')],
    engine,
    close() {
      engine.close();
      connection?.close();
    },
  };
}
