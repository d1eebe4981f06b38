import type { Duplex } from 'node:stream';
import type { ClientChannel } from 'ssh2';
import { rejectOnAbort } from '../async/reject-on-abort.ts';
import type { Dialer } from '../net/dialer.ts';
import type { Owner } from '../owner.ts';
import { resolveJumpChain, type SshHop, type SshServer } from './config.ts';
import { dialFirstHop, connectThroughHop, type SshConnection } from './connection.ts';
import type { SshStageListener } from './handshake.ts';
import { createConnectionPool, type SshPoolKey, type ChannelSlot } from './connection-pool.ts';
import { createDecryptedKeys, type DecryptedKeys } from './decrypted-keys.ts';
import type { RemoteProgram } from './remote-program.ts';
import { SshError } from './ssh-error.ts';

/** A command's stdin and stdout as one stream: reads return its stdout, writes go to its stdin. */
export interface ExecStream extends Duplex {
  /** Resolves once the channel has closed and its output was read. */
  readonly ended: Promise<ExecResult>;
}

export interface ExecResult {
  /** Both are null when the server reported no status, e.g. because the connection was lost. */
  code: number | null;
  signal: string | null;
  /**
   * The first 4096 bytes of stderr as Latin-1, to tell failures apart. It is text from the server, which may contain
   * anything: only the owner may see parts of it, without secrets.
   */
  stderr: string;
}

/** A connection that is not shared, for the test of a server; two when the server allows one session on each. */
export interface DedicatedSshConnection {
  exec(command: string, signal: AbortSignal): Promise<ClientChannel>;
  /** Closes the connection and those to its jump servers. */
  close(): void;
}

/** Pooled SSH connections to users' servers, keyed by owner, server and version. */
export interface SshConnections {
  /**
   * Runs a command in the account's shell that ends with its input, also when the signal is aborted while it starts.
   * The caller closes the channel and reads it to its end.
   * @throws SshError, after which nothing was run, or the signal's reason.
   */
  exec(server: SshServer, command: string, signal: AbortSignal): Promise<ClientChannel>;
  /**
   * Runs a command and returns its stdin and stdout as one stream. Its stderr is drained; only its beginning is kept.
   * Another program may run in its place, which `shell-start.ts` finds out before anything is written.
   * `destroy()` kills the program and its process group, and so does closing the connection.
   * @param signal aborts opening the stream only.
   * @throws what {@link exec} throws.
   */
  openExecStream(server: SshServer, command: string, signal: AbortSignal): Promise<ExecStream>;
  /** Opens an unshared connection and reports each stage. @throws SshError or the signal's reason. */
  connect(server: SshServer, signal: AbortSignal, onStage: SshStageListener): Promise<DedicatedSshConnection>;
  /** Closes the connections to and through a server; those in use close when their last channel ends. */
  release(serverId: string): void;
  /** The same for all servers of an owner. */
  releaseOwner(owner: Owner): void;
  /** Owners with open connections, in use or not. */
  listOwners(): Owner[];
  /** Ends the programs of the streams and closes all connections, each in at most 2 s. */
  close(): Promise<void>;
}

/** Each refusal lowers the number of channels of a connection, which is 8 at first. */
const MAX_ATTEMPTS = 16;
const MAX_LOST_CONNECTIONS = 3;
const MAX_STDERR_LENGTH = 4_096;

export interface SshConnectionsDeps {
  dialer: Pick<Dialer, 'connect'>;
  decryptedKeys?: DecryptedKeys;
}

/** All TCP connections go through the dialer, which enforces the egress policy. */
export function createSshConnections(deps: SshConnectionsDeps): SshConnections {
  const { dialer, decryptedKeys = createDecryptedKeys() } = deps;
  const pool = createConnectionPool();

  function acquire(hops: readonly SshHop[], signal: AbortSignal): Promise<ChannelSlot> {
    return pool.acquire(toPoolKey(hops), (connectSignal) => connectShared(hops, connectSignal), signal);
  }

  /** Connects to the last hop through shared connections to the previous ones. */
  async function connectShared(hops: readonly SshHop[], signal: AbortSignal): Promise<SshConnection> {
    if (hops.length === 1) return await connectHop(undefined, getLast(hops), signal, ignoreStage);
    const previous = await acquire(hops.slice(0, -1), signal);
    try {
      const connection = await connectHop(previous.connection, getLast(hops), signal, ignoreStage);
      previous.markOpen();
      connection.onClose(() => previous.release());
      return connection;
    } catch (error) {
      previous.release();
      throw error;
    }
  }

  /** Connects to a hop, through the previous one if there is one, and holds its decrypted key as long as it is open. */
  async function connectHop(
    previous: SshConnection | undefined,
    hop: SshHop,
    signal: AbortSignal,
    onStage: SshStageListener,
  ): Promise<SshConnection> {
    const key = decryptedKeys.lease(hop);
    try {
      const options = { key, signal, onStage };
      const connection = await (previous === undefined
        ? dialFirstHop(dialer, hop, options)
        : connectThroughHop(previous, hop, options));
      connection.onClose(() => key.release());
      return connection;
    } catch (error) {
      key.release();
      throw error;
    }
  }

  /** @param open opens a channel of the connection. */
  async function openOn<T>(
    server: SshServer,
    signal: AbortSignal,
    open: (connection: SshConnection) => Promise<T>,
    getChannel: (opened: T) => ClientChannel,
  ): Promise<T> {
    const hops = resolveJumpChain(server);
    for (let attempt = 1; ; attempt += 1) {
      const slot = await acquire(hops, signal);
      try {
        const opened = await open(slot.connection);
        slot.markOpen();
        getChannel(opened).once('close', () => slot.release());
        return opened;
      } catch (error) {
        if (!(error instanceof SshError)) {
          slot.release();
          throw error;
        }
        // Nothing was run yet: the pooled connection was lost, or the server allows fewer sessions on it.
        const isRefused = slot.connection.isOpen();
        const mayRetry = isRefused
          ? await rejectOnAbort(slot.markRefused(), signal)
          : attempt < MAX_LOST_CONNECTIONS;
        slot.release();
        if (!mayRetry || attempt === MAX_ATTEMPTS) throw error;
      }
    }
  }

  return {
    exec: (server, command, signal) =>
      openOn(
        server,
        signal,
        (connection) => connection.exec(command, signal),
        (channel) => channel,
      ),
    async openExecStream(server, command, signal) {
      const program = await openOn(
        server,
        signal,
        (connection) => connection.startProgram(command, signal),
        ({ channel }) => channel,
      );
      return toExecStream(program);
    },
    async connect(server, signal, onStage) {
      const hops = resolveJumpChain(server);
      const chain: SshConnection[] = [];
      const close = () => {
        for (const connection of chain.reverse()) void connection.close();
      };
      const connectNext = async (
        hop: SshHop,
        previous: SshConnection | undefined,
        next: AbortSignal,
        report: SshStageListener,
      ) => {
        const connection = await connectHop(previous, hop, next, report);
        chain.push(connection);
        return connection;
      };
      try {
        for (const hop of hops) await connectNext(hop, chain.at(-1), signal, onStage);
      } catch (error) {
        close();
        throw error;
      }
      const previous = chain.at(-2);
      return {
        close,
        exec: execInTurn(getLast(chain), (execSignal) =>
          connectNext(getLast(hops), previous, execSignal, ignoreStage),
        ),
      };
    },
    release: (serverId) => pool.release(serverId),
    releaseOwner: (owner) => pool.releaseOwner(owner),
    listOwners: () => pool.listOwners(),
    close: () => pool.close(),
  };
}

const ignoreStage: SshStageListener = () => undefined;

/** Runs commands on a connection, and on a further one when the server allows fewer sessions on it. */
function execInTurn(
  first: SshConnection,
  connectAgain: (signal: AbortSignal) => Promise<SshConnection>,
): DedicatedSshConnection['exec'] {
  let connection = first;
  let isFresh = true;
  return async (command, signal) => {
    try {
      const channel = await connection.exec(command, signal);
      isFresh = false;
      return channel;
    } catch (error) {
      if (isFresh || !(error instanceof SshError) || !connection.isOpen()) throw error;
      connection = await connectAgain(signal);
      return await connection.exec(command, signal);
    }
  };
}

function getLast<T>(list: readonly T[]): T {
  const last = list.at(-1);
  if (last === undefined) throw new Error('the jump chain is empty');
  return last;
}

function toPoolKey(hops: readonly SshHop[]): SshPoolKey {
  const parts = hops.map((hop) => [hop.owner, hop.serverId, hop.version, hop.hostKey]);
  const { owner } = getLast(hops);
  return { text: JSON.stringify(parts), owner, serverIds: hops.map((hop) => hop.serverId) };
}

function toExecStream(program: RemoteProgram): ExecStream {
  const { channel } = program;
  let stderr = '';
  channel.stderr.on('data', (chunk: Buffer) => {
    if (stderr.length < MAX_STDERR_LENGTH)
      stderr += chunk.toString('latin1', 0, MAX_STDERR_LENGTH - stderr.length);
  });
  const ended = new Promise<ExecResult>((resolve) => {
    // ssh2 repeats the status here. The event `exit` of a program that ends at once precedes this listener.
    channel.once('close', (code?: number | null, signal?: string | null) =>
      resolve({ code: code ?? null, signal: signal ?? null, stderr }),
    );
  });
  return Object.assign(channel, {
    ended,
    destroy() {
      channel.end();
      void program.end();
      return channel;
    },
  });
}
