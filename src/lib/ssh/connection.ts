import type { Duplex } from 'node:stream';
import type { Client, ClientChannel } from 'ssh2';
import type { Dialer } from '../dialer.ts';
import { isAppError } from '../errors.ts';
import { isOverdrawn } from './back-pressure.ts';
import type { Hop } from './config.ts';
import { failed, shakeHands, type StageListener } from './handshake.ts';
import type { SshError } from './ssh-error.ts';

/** One authenticated connection. */
export interface Connection {
  readonly hop: Hop;
  isOpen(): boolean;
  /** @throws SshError, or the signal's reason: then nothing was run. */
  exec(command: string, signal: AbortSignal): Promise<ClientChannel>;
  /** A stream from the server to a host that it can reach. @throws what {@link exec} throws. */
  forward(next: Hop, signal: AbortSignal): Promise<Duplex>;
  close(): void;
  onClose(listener: () => void): void;
}

/** A channel is opened in two round trips; past this the connection is taken for dead. */
const OPEN_TIMEOUT_MS = 10_000;
/** ssh2 ignores back pressure on what it sends; an honest server reads, or keeps our window closed. */
const MAX_UNSENT_BYTES = 16 * 1024 * 1024;
/** Of one channel: each of its streams may hold a window of 2 MiB, and ssh2 opens it for both alike. */
const MAX_UNREAD_BYTES = 8 * 1024 * 1024;

/** Dials the first hop, by the policy for addresses that users bring. @throws SshError, or the signal's reason. */
export async function dialHop(
  dialer: Pick<Dialer, 'connect'>,
  hop: Hop,
  signal: AbortSignal,
  onStage: StageListener,
): Promise<Connection> {
  const { host, port } = hop.config;
  const socket = await dialer.connect(host, port, signal).catch((error: unknown) => {
    signal.throwIfAborted();
    if (!isAppError(error, 'endpoint_forbidden')) onStage('policy', hop);
    throw undialled(hop, error);
  });
  onStage('policy', hop);
  onStage('tcp', hop);
  return createConnection(hop, socket, await shakeHands(hop, socket, signal, onStage));
}

/** Connects to the next hop through the one before it. @throws SshError, or the signal's reason. */
export async function passThrough(
  before: Connection,
  hop: Hop,
  signal: AbortSignal,
  onStage: StageListener,
): Promise<Connection> {
  const stream = await before.forward(hop, signal);
  onStage('tcp', hop);
  return createConnection(hop, stream, await shakeHands(hop, stream, signal, onStage));
}

function undialled(hop: Hop, cause: unknown): SshError {
  if (isAppError(cause, 'endpoint_forbidden')) {
    const message =
      'This address may not be reached from here. The operator decides which may (EGRESS_ALLOW).';
    return failed(hop, { failure: 'forbidden', stage: 'policy', message, cause });
  }
  const message = isAppError(cause, 'upstream_timeout')
    ? 'The server did not answer in time. Check address, port and firewall.'
    : 'The server cannot be reached: its name is not found, or nothing listens there. Check address and port.';
  return failed(hop, { failure: 'offline', stage: 'tcp', message, cause });
}

type Opened = (error: Error | undefined, channel: ClientChannel) => void;

function createConnection(hop: Hop, transport: Duplex, client: Client): Connection {
  const channels = new Set<ClientChannel>();
  const listeners: (() => void)[] = [];
  let isOpen = true;
  client.once('close', () => {
    isOpen = false;
    for (const listener of listeners) listener();
  });

  function close(): void {
    isOpen = false;
    client.end();
    transport.destroy();
  }

  transport.on('data', () => {
    const isFlooded = [...channels].some(
      (channel) =>
        isOverdrawn(channel) || channel.readableLength + channel.stderr.readableLength > MAX_UNREAD_BYTES,
    );
    if (isFlooded || transport.writableLength > MAX_UNSENT_BYTES) close();
  });

  function open(
    start: (opened: Opened) => unknown,
    refusal: (error: Error) => SshError,
    signal: AbortSignal,
  ): Promise<ClientChannel> {
    return new Promise((resolve, reject) => {
      const dead = setTimeout(() => {
        reject(broken(hop));
        close();
      }, OPEN_TIMEOUT_MS);
      const giveUp = () => reject(signal.reason as Error);
      signal.addEventListener('abort', giveUp, { once: true });
      const opened: Opened = (error, channel) => {
        clearTimeout(dead);
        signal.removeEventListener('abort', giveUp);
        if (error !== undefined) {
          reject(isOpen ? refusal(error) : broken(hop));
          return;
        }
        channels.add(channel);
        channel.once('close', () => channels.delete(channel));
        if (signal.aborted) discard(channel);
        else resolve(channel);
      };
      try {
        start(opened);
      } catch (error) {
        // ssh2 throws when the connection has just ended.
        isOpen = false;
        opened(error as Error, undefined as never);
      }
    });
  }

  return {
    hop,
    isOpen: () => isOpen,
    exec: (command, signal) =>
      open(
        (opened) => client.exec(command, opened),
        (cause) => noSession(hop, cause),
        signal,
      ),
    forward: (next, signal) =>
      open(
        (opened) => client.forwardOut('127.0.0.1', 0, bare(next.config.host), next.config.port, opened),
        (cause) => notForwarded(next, cause),
        signal,
      ),
    close,
    onClose: (listener) => void listeners.push(listener),
  };
}

/** Closes a channel and reads what is left of it: only then does ssh2 let it go. */
export function discard(channel: ClientChannel): void {
  channel.on('error', () => undefined);
  channel.close();
  channel.resume();
  channel.stderr.resume();
}

function bare(host: string): string {
  return host.replace(/^\[|\]$/g, '');
}

function broken(hop: Hop): SshError {
  const message = 'The connection to the server broke off.';
  return failed(hop, { failure: 'offline', stage: 'permission', message });
}

function noSession(hop: Hop, cause: Error): SshError {
  const message =
    'The server accepted the sign-in but runs no commands: it allows no (further) sessions, see MaxSessions and ' +
    'ForceCommand in its sshd_config.';
  return failed(hop, { failure: 'error', stage: 'permission', message, cause });
}

/** RFC 4254, 5.1: 1 is "administratively prohibited", 2 "connect failed". */
function notForwarded(next: Hop, cause: Error): SshError {
  const isProhibited = (cause as { reason?: unknown }).reason === 1;
  const message = isProhibited
    ? 'The jump server does not forward connections to it: set AllowTcpForwarding in its sshd_config.'
    : 'The jump server cannot reach it. Check address and port as seen from the jump server.';
  return failed(next, { failure: 'offline', stage: 'tcp', message, cause });
}
