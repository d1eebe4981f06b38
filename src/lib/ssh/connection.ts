import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Client, ClientChannel } from 'ssh2';
import type { Dialer } from '../net/dialer.ts';
import { isAppError } from '../errors.ts';
import { hasExceededWindow } from './back-pressure.ts';
import type { SshHop } from './config.ts';
import { discardChannel, isClosing } from './discard-channel.ts';
import { createHopError } from './handshake-error.ts';
import { performSshHandshake, type HandshakeOptions } from './handshake.ts';
import { createProgramSet, type RemoteProgram } from './remote-program.ts';
import type { SshError } from './ssh-error.ts';

/** An authenticated connection to one server. */
export interface SshConnection {
  isOpen(): boolean;
  /**
   * Runs a command that ends with its input, also when the signal is aborted while it starts.
   * @throws SshError, after which nothing was run, or the signal's reason.
   */
  exec(command: string, signal: AbortSignal): Promise<ClientChannel>;
  /**
   * Runs a command that is killed before the connection closes, and when the signal is aborted while it starts.
   * @throws what {@link exec} throws.
   */
  startProgram(command: string, signal: AbortSignal): Promise<RemoteProgram>;
  /** Opens a stream from this server to a host that it can reach. @throws what {@link exec} throws. */
  forward(next: SshHop, signal: AbortSignal): Promise<Duplex>;
  /** Opens no more channels, ends the programs, then closes. Takes at most 2 s, and none without programs. */
  close(): Promise<void>;
  onClose(listener: () => void): void;
}

/** Opening a channel takes two round trips. After this time the connection is considered lost. */
const CHANNEL_OPEN_TIMEOUT_MS = 10_000;
/** A server has one to two of these times to close a channel that was closed here. */
const CLOSE_CHECK_MS = 5_000;
/** For programs to end before their connection closes, with those that are just starting. */
const MAX_CLOSE_MS = 2_000;
/** ssh2 ignores back pressure when it sends. A well-behaved server reads, or keeps our window closed. */
const MAX_UNSENT_BYTES = 16 * 1024 * 1024;
/** Per channel. Each of its two streams can buffer a whole window of 2 MiB; ssh2 enlarges it for both. */
const MAX_UNREAD_BYTES = 8 * 1024 * 1024;

/** Connects to the first hop under the egress policy. @throws SshError or the signal's reason. */
export async function dialFirstHop(
  dialer: Pick<Dialer, 'connect'>,
  hop: SshHop,
  options: HandshakeOptions,
): Promise<SshConnection> {
  const { signal, onStage } = options;
  const { host, port } = hop.config;
  const socket = await dialer.connect(host, port, signal).catch((error: unknown) => {
    signal.throwIfAborted();
    if (!isAppError(error, 'endpoint_forbidden')) onStage('policy', hop);
    throw toDialError(hop, error);
  });
  onStage('policy', hop);
  onStage('tcp', hop);
  return createConnection(hop, socket, await performSshHandshake(hop, socket, options));
}

/** Connects to a hop through the previous one. @throws SshError or the signal's reason. */
export async function connectThroughHop(
  previous: SshConnection,
  hop: SshHop,
  options: HandshakeOptions,
): Promise<SshConnection> {
  const stream = await previous.forward(hop, options.signal);
  options.onStage('tcp', hop);
  return createConnection(hop, stream, await performSshHandshake(hop, stream, options));
}

function toDialError(hop: SshHop, cause: unknown): SshError {
  if (isAppError(cause, 'endpoint_forbidden')) {
    return createHopError(hop, { failure: 'forbidden', stage: 'policy', message: cause.detail, cause });
  }
  const message = isAppError(cause, 'upstream_timeout')
    ? 'The server did not answer in time. Check address, port and firewall.'
    : 'The server cannot be reached: no process listens on the port, or its name cannot be resolved at the moment. Check address and port.';
  return createHopError(hop, { failure: 'offline', stage: 'tcp', message, cause });
}

type ChannelCallback = (error: Error | undefined, channel: ClientChannel) => void;

function createConnection(hop: SshHop, transport: Duplex, client: Client): SshConnection {
  const channels = new Set<ClientChannel>();
  const programs = createProgramSet();
  const listeners: (() => void)[] = [];
  let isOpen = true;
  const closeCheck = setInterval(createCloseCheck(channels, retire, cut), CLOSE_CHECK_MS).unref();
  client.once('close', () => {
    isOpen = false;
    clearInterval(closeCheck);
    for (const listener of listeners) listener();
  });

  /** The open channels stay. */
  function retire(): void {
    isOpen = false;
  }

  /** For a server that does not respond or breaks limits. Programs are sent their signal, but not waited for. */
  function cut(): void {
    isOpen = false;
    void programs.end();
    client.end();
    transport.destroy();
  }

  async function close(): Promise<void> {
    isOpen = false;
    if (!programs.isEmpty())
      await Promise.race([programs.end(), delay(MAX_CLOSE_MS, undefined, { ref: false })]);
    cut();
  }

  transport.on('data', () => {
    const isOverLimit = [...channels].some(
      (channel) =>
        hasExceededWindow(channel) ||
        channel.readableLength + channel.stderr.readableLength > MAX_UNREAD_BYTES,
    );
    if (isOverLimit || transport.writableLength > MAX_UNSENT_BYTES) cut();
  });

  /** @param discard closes a channel that opens after the signal was aborted, or while the connection closes. */
  function openChannel(
    start: (opened: ChannelCallback) => unknown,
    toError: (error: Error) => SshError,
    signal: AbortSignal,
    discard: (channel: ClientChannel) => void = discardChannel,
  ): Promise<ClientChannel> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(createConnectionLostError(hop));
        cut();
      }, CHANNEL_OPEN_TIMEOUT_MS);
      const onAbort = () => reject(signal.reason as Error);
      signal.addEventListener('abort', onAbort, { once: true });
      const opened: ChannelCallback = (error, channel) => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        if (error !== undefined) {
          reject(isOpen ? toError(error) : createConnectionLostError(hop));
          return;
        }
        channels.add(channel);
        channel.once('close', () => channels.delete(channel));
        if (isOpen && !signal.aborted) {
          resolve(channel);
          return;
        }
        reject(createConnectionLostError(hop));
        discard(channel);
      };
      try {
        start(opened);
      } catch (error) {
        // ssh2 throws when the connection has just closed.
        isOpen = false;
        opened(error as Error, undefined as never);
      }
    });
  }

  async function startProgram(command: string, signal: AbortSignal): Promise<RemoteProgram> {
    const start = programs.beginStart();
    await openChannel(
      (opened) => {
        try {
          client.exec(command, (error, channel) => {
            start.finish(error === undefined ? channel : undefined);
            opened(error, channel);
          });
        } catch (error) {
          start.finish(undefined);
          throw error;
        }
      },
      (cause) => createSessionRefusedError(hop, cause),
      signal,
      () => void start.getProgram().end(),
    );
    return start.getProgram();
  }

  return {
    startProgram,
    isOpen: () => isOpen,
    exec: (command, signal) =>
      openChannel(
        (opened) => client.exec(command, opened),
        (cause) => createSessionRefusedError(hop, cause),
        signal,
      ),
    forward: (next, signal) =>
      openChannel(
        (opened) =>
          client.forwardOut('127.0.0.1', 0, withoutBrackets(next.config.host), next.config.port, opened),
        (cause) => createForwardRefusedError(next, cause),
        signal,
      ),
    close,
    onClose: (listener) => void listeners.push(listener),
  };
}

/**
 * A server that never closes its channels would keep them, what it sends into them, and their slots in the pool.
 * @param retire is called when a server leaves a channel open that was closed before the last check.
 * @param cut is called when it has no other channels any more.
 */
function createCloseCheck(
  channels: ReadonlySet<ClientChannel>,
  retire: () => void,
  cut: () => void,
): () => void {
  let closing = new Set<ClientChannel>();
  return () => {
    const stillClosing = [...channels].filter(isClosing);
    const isStuck = stillClosing.some((channel) => closing.has(channel));
    closing = new Set(stillClosing);
    if (!isStuck) return;
    retire();
    if (stillClosing.length === channels.size) cut();
  };
}

function withoutBrackets(host: string): string {
  return host.replace(/^\[|\]$/g, '');
}

function createConnectionLostError(hop: SshHop): SshError {
  const message = 'The connection to the server was lost. Try again.';
  return createHopError(hop, { failure: 'offline', stage: 'permission', message });
}

function createSessionRefusedError(hop: SshHop, cause: Error): SshError {
  const message =
    'The server accepted the sign-in but refused a session to run commands. Check MaxSessions and ForceCommand in ' +
    'its sshd_config.';
  return createHopError(hop, { failure: 'error', stage: 'permission', message, cause });
}

/** RFC 4254, 5.1: 1 is "administratively prohibited", 2 "connect failed". */
function createForwardRefusedError(next: SshHop, cause: Error): SshError {
  const isProhibited = (cause as { reason?: unknown }).reason === 1;
  const message = isProhibited
    ? 'The jump server does not forward connections to this server. Set AllowTcpForwarding in its sshd_config.'
    : 'The jump server cannot reach this server. Check address and port as seen from the jump server.';
  return createHopError(next, { failure: 'offline', stage: 'tcp', message, cause });
}
