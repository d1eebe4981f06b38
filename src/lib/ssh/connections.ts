import type { Duplex } from 'node:stream';
import type { ClientChannel } from 'ssh2';
import type { Dialer } from '../net/dialer.ts';
import { resolveJumpChain, type SshHop, type SshServer } from './config.ts';
import { dialFirstHop, discardChannel, connectThroughHop, type SshConnection } from './connection.ts';
import type { SshStageListener } from './handshake.ts';
import { createConnectionPool, type SshPoolKey, type ChannelSlot } from './connection-pool.ts';
import { SshError } from './ssh-error.ts';

/** A command's streams: what it prints is read from it, what is written to it is the command's input. */
export interface ExecStream extends Duplex {
  /** Resolves once the channel has closed and what it sent was read. */
  readonly ended: Promise<ExecResult>;
}

export interface ExecResult {
  /** Both null when the server did not say, e.g. because the connection broke off. */
  code: number | null;
  signal: string | null;
  /** The beginning of the command's error stream, for telling failures apart; not to be passed on. */
  stderr: string;
}

/** A connection of one's own, not shared: for tests of a server. */
export interface DedicatedSshConnection {
  exec(command: string, signal: AbortSignal): Promise<ClientChannel>;
  /** Closes it and the connections to the jump servers. */
  close(): void;
}

/** SSH connections to users' servers, kept for their next use: one set per server, version and owner. */
export interface SshConnections {
  /**
   * Runs a command by the account's shell; the caller closes the channel and reads it to its end.
   * @throws SshError, or the signal's reason: then nothing was run.
   */
  exec(server: SshServer, command: string, signal: AbortSignal): Promise<ClientChannel>;
  /**
   * The same as a plain stream, for a protocol over a command's input and output, e.g. that of
   * `docker system dial-stdio`. Its error stream is read and dropped but for its beginning.
   * @param signal ends the opening; afterwards `destroy()` ends the stream.
   * @throws what {@link exec} throws.
   */
  openExecStream(server: SshServer, command: string, signal: AbortSignal): Promise<ExecStream>;
  /** Connects anew and tells how far it comes. @throws SshError, or the signal's reason. */
  connect(server: SshServer, signal: AbortSignal, onStage: SshStageListener): Promise<DedicatedSshConnection>;
  /** Lets go of connections to a server, and of those through it; what is under way goes on. */
  forget(serverId: string): void;
  close(): void;
}

const MAX_ATTEMPTS = 3;
const MAX_STDERR_LENGTH = 4_096;

/** Builds the pool; all TCP connections go through the dialer. */
export function createSshConnections(deps: { dialer: Pick<Dialer, 'connect'> }): SshConnections {
  const { dialer } = deps;
  const pool = createConnectionPool();

  function acquire(hops: readonly SshHop[], signal: AbortSignal): Promise<ChannelSlot> {
    return pool.acquire(toPoolKey(hops), (phase) => connectShared(hops, phase), signal);
  }

  /** The last hop, over shared connections to the ones before it. */
  async function connectShared(hops: readonly SshHop[], signal: AbortSignal): Promise<SshConnection> {
    const last = getLast(hops);
    if (hops.length === 1) return await dialFirstHop(dialer, last, signal, ignoreStage);
    const previous = await acquire(hops.slice(0, -1), signal);
    try {
      const connection = await connectThroughHop(previous.connection, last, signal, ignoreStage);
      connection.onClose(() => previous.release());
      return connection;
    } catch (error) {
      previous.release();
      throw error;
    }
  }

  async function exec(server: SshServer, command: string, signal: AbortSignal): Promise<ClientChannel> {
    const hops = resolveJumpChain(server);
    for (let attempt = 1; ; attempt += 1) {
      const slot = await acquire(hops, signal);
      try {
        const channel = await slot.connection.exec(command, signal);
        channel.once('close', () => slot.release());
        return channel;
      } catch (error) {
        // A kept connection may have died unnoticed, and a server may allow fewer sessions: nothing was run yet.
        slot.markFull();
        slot.release();
        if (!(error instanceof SshError) || attempt === MAX_ATTEMPTS) throw error;
      }
    }
  }

  return {
    exec,
    async openExecStream(server, command, signal) {
      return toExecStream(await exec(server, command, signal));
    },
    async connect(server, signal, onStage) {
      const chain: SshConnection[] = [];
      const close = () => {
        for (const connection of chain.reverse()) connection.close();
      };
      try {
        for (const hop of resolveJumpChain(server)) {
          const previous = chain.at(-1);
          chain.push(
            previous === undefined
              ? await dialFirstHop(dialer, hop, signal, onStage)
              : await connectThroughHop(previous, hop, signal, onStage),
          );
        }
        const last = getLast(chain);
        return { exec: (command, phase) => last.exec(command, phase), close };
      } catch (error) {
        close();
        throw error;
      }
    },
    forget: (serverId) => pool.forget(serverId),
    close: () => pool.close(),
  };
}

const ignoreStage: SshStageListener = () => undefined;

function getLast<T>(list: readonly T[]): T {
  const last = list.at(-1);
  if (last === undefined) throw new Error('there is at least one hop');
  return last;
}

function toPoolKey(hops: readonly SshHop[]): SshPoolKey {
  const parts = hops.map((hop) => [hop.owner, hop.serverId, hop.version, hop.hostKey]);
  return { text: JSON.stringify(parts), serverIds: hops.map((hop) => hop.serverId) };
}

function toExecStream(channel: ClientChannel): ExecStream {
  let errors = '';
  channel.stderr.on('data', (chunk: Buffer) => {
    if (errors.length < MAX_STDERR_LENGTH)
      errors += chunk.toString('latin1', 0, MAX_STDERR_LENGTH - errors.length);
  });
  let status: Pick<ExecResult, 'code' | 'signal'> = { code: null, signal: null };
  channel.once('exit', (code: number | null, signal?: string) => {
    status = { code, signal: signal ?? null };
  });
  const ended = new Promise<ExecResult>((resolve) => {
    channel.once('close', () => resolve({ ...status, stderr: errors }));
  });
  const destroy = channel.destroy.bind(channel);
  return Object.assign(channel, {
    ended,
    destroy() {
      destroy();
      discardChannel(channel);
      return channel;
    },
  });
}
