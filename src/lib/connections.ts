import { setImmediate as nextTurn } from 'node:timers/promises';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { Client } from 'undici';
import {
  forbidden,
  portOf,
  resolveHost,
  type AdmittedAddress,
  type EgressPolicy,
  type Lookup,
} from './egress.ts';
import { AppError } from './errors.ts';

/** One HTTP/1.1 connection, used by one request at a time. */
export interface Connection {
  readonly client: Client;
  /** False when the address dialled is not public; addresses of the operator count as public. */
  readonly isPublic: boolean;
  /** True from the second request on: then the upstream may have closed it meanwhile. */
  readonly isReused: boolean;
  isOpen(): boolean;
  /** Gives the connection back once an answer has been received in full. */
  release(): void;
  /** Closes the socket at once. */
  discard(): void;
}

export interface Connections {
  /**
   * An idle connection to the origin of `url`, or a new one. Guarded and unguarded ones are kept apart.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, `endpoint_forbidden`; or the reason of
   *   `signal`, upon which a connecting socket is closed at once.
   */
  acquire(url: URL, guarded: boolean, signal: AbortSignal): Promise<Connection>;
  /** Closes everything, idle or not. */
  close(): Promise<void>;
}

export interface ConnectionsOptions {
  policy: EgressPolicy;
  lookup?: Lookup;
  /** Look-up, TCP and TLS together. */
  connectTimeoutMs: number;
}

/**
 * A client of undici reconnects by itself when its connection ends before a request was written. Ours
 * has one connection, dialled and checked beforehand, so it gets this error: the request was not sent.
 */
export const notSent = new Error('the connection ended before the request was sent');

const CLIENT_OPTIONS = {
  pipelining: 1,
  allowH2: false,
  maxHeaderSize: 16 * 1024,
  // Servers close idle connections after 5 s or more, and a request that meets the close is lost: end
  // earlier than that, and 2 s before what a `keep-alive` header promises.
  keepAliveTimeout: 4_000,
  keepAliveTimeoutThreshold: 2_000,
  keepAliveMaxTimeout: 30_000,
  // undici's timers are off by up to a second and run on while a slow reader holds the answer back.
  headersTimeout: 0,
  bodyTimeout: 0,
};

/**
 * Keeps the connections to upstreams. It connects by itself and hands undici the finished socket: undici
 * leaves a connecting socket alone when its request is aborted, and by then it has left the policy behind.
 */
export function createConnections(options: ConnectionsOptions): Connections {
  const idle = new Map<string, Connection[]>();
  const open = new Set<Client>();
  const closing = new AbortController();

  async function dial(url: URL, guarded: boolean, signal: AbortSignal): Promise<[Socket, boolean]> {
    const { targets, port } = await findTargets(url, guarded, signal);
    const attemptMs = options.connectTimeoutMs / targets.length;
    let failure: unknown = forbidden();
    // In the order of the resolver, which sorts by what is reachable (RFC 6724).
    for (const { address, isPublic } of targets) {
      try {
        return [await openSocket(url, address, port, attemptMs, signal), isPublic];
      } catch (error) {
        signal.throwIfAborted();
        failure = error;
      }
    }
    throw failure;
  }

  async function findTargets(url: URL, guarded: boolean, signal: AbortSignal) {
    const port = portOf(url);
    const targets = guarded ? options.policy.admit(url.hostname, port) : operatorTargets(url.hostname);
    return { port, targets: await untilAborted(targets, signal) };
  }

  async function operatorTargets(host: string): Promise<AdmittedAddress[]> {
    const addresses = await resolveHost(host, options.lookup);
    return addresses.map((address) => ({ address, isPublic: true }));
  }

  function keep(key: string, url: URL, socket: Socket, isPublic: boolean): Connection {
    const client = new Client(url.origin, { ...CLIENT_OPTIONS, connect: handOver(socket) });
    const connection = {
      client,
      isPublic,
      isReused: false,
      isOpen: () => !socket.destroyed,
      release() {
        connection.isReused = true;
        // undici decides right after its last callback whether the connection lives on.
        queueMicrotask(() => {
          if (socket.destroyed) return;
          const others = idle.get(key);
          if (others === undefined) idle.set(key, [connection]);
          else others.push(connection);
        });
      },
      discard() {
        // With an error, or undici takes the end of the socket for the end of a body without length.
        socket.destroy(new Error('discarded'));
      },
    };
    open.add(client);
    socket.once('close', () => {
      open.delete(client);
      const others = idle.get(key)?.filter((other) => other !== connection) ?? [];
      if (others.length > 0) idle.set(key, others);
      else idle.delete(key);
    });
    return connection;
  }

  async function takeIdle(key: string): Promise<Connection | undefined> {
    for (let known = idle.get(key)?.pop(); known !== undefined; known = idle.get(key)?.pop()) {
      // undici lets one turn of the event loop pass before it uses a connection again, which may be the
      // rest of this one. With ours, what has arrived by now is read first: a close costs no request.
      await nextTurn();
      if (known.isOpen()) return known;
    }
    return undefined;
  }

  return {
    async acquire(url, guarded, signal) {
      const key = `${guarded ? 'guarded' : 'operator'} ${url.origin}`;
      const known = await takeIdle(key);
      if (known !== undefined) return known;
      const [socket, isPublic] = await withDeadline(
        options.connectTimeoutMs,
        [signal, closing.signal],
        (phase) => dial(url, guarded, phase),
      );
      // Closed between the socket's last event and here, when nobody was listening.
      if (closing.signal.aborted) socket.destroy();
      return keep(key, url, socket, isPublic);
    },
    async close() {
      closing.abort(unreachable(new Error('closed')));
      await Promise.all([...open].map((client) => client.destroy()));
    },
  };
}

/** 502 for whatever keeps an upstream from answering; the cause is for the log alone. */
export function unreachable(cause: unknown): AppError {
  return new AppError('upstream_unreachable', 'The upstream could not be reached, or broke off.', { cause });
}

/** 504 for an upstream that is too slow in `phase`. */
export function tooSlow(phase: string): AppError {
  return new AppError('upstream_timeout', `The upstream took too long to ${phase}.`);
}

/** Dials exactly `address`; the name in `url` goes into SNI and is what the certificate must show. */
function openSocket(
  url: URL,
  address: string,
  port: number,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const target = { host: address, port, keepAlive: true, keepAliveInitialDelay: 60_000 };
  const isTls = url.protocol === 'https:';
  // SNI holds names only (RFC 6066); for a literal, the address itself is compared with the certificate.
  const servername = isIP(url.hostname.replace(/^\[|\]$/g, '')) === 0 ? { servername: url.hostname } : {};
  const socket = isTls
    ? connectTls({
        ...target,
        ...servername,
        ALPNProtocols: ['http/1.1'],
        rejectUnauthorized: true, // Said aloud, so that no environment variable turns it off.
      })
    : connectTcp(target);
  const fail = (error: unknown) => {
    socket.destroy();
    reject(error);
  };
  const onAbort = () => {
    fail(signal.reason);
  };
  const timer = setTimeout(() => {
    fail(tooSlow('accept a connection'));
  }, timeoutMs);
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  // Stays for good: an error on an idle socket must not end the process.
  socket.on('error', (error) => {
    reject(unreachable(error));
  });
  socket.once('close', () => {
    reject(unreachable(new Error('closed while connecting')));
  });
  socket.once(isTls ? 'secureConnect' : 'connect', () => {
    socket.setNoDelay(true);
    resolve(socket);
  });
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  });
}

/** undici's connector for a socket that is connected already; it serves once. */
function handOver(socket: Socket) {
  let isSpent = false;
  return (_options: unknown, callback: (...result: [null, Socket] | [Error, null]) => void) => {
    const isFirst = !isSpent;
    isSpent = true;
    // Later, since undici ignores what happens while it is still calling.
    queueMicrotask(() => {
      if (isFirst && !socket.destroyed) callback(null, socket);
      else callback(notSent, null);
    });
  };
}

/** Runs `work` with a signal that also ends after `timeoutMs`; all its errors come out as AppError. */
async function withDeadline<T>(
  timeoutMs: number,
  signals: readonly AbortSignal[],
  work: (phase: AbortSignal) => Promise<T>,
): Promise<T> {
  for (const signal of signals) signal.throwIfAborted();
  const phase = new AbortController();
  const timer = setTimeout(() => {
    phase.abort(tooSlow('accept a connection'));
  }, timeoutMs);
  const follow = (event: Event) => {
    phase.abort((event.target as AbortSignal).reason);
  };
  for (const signal of signals) signal.addEventListener('abort', follow);
  try {
    return await work(phase.signal);
  } catch (error) {
    phase.signal.throwIfAborted();
    throw error instanceof AppError ? error : unreachable(error);
  } finally {
    clearTimeout(timer);
    for (const signal of signals) signal.removeEventListener('abort', follow);
  }
}

/** A look-up cannot be cancelled; this stops waiting for it. */
function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => {
      reject(signal.reason as Error);
    });
    work.then(resolve, reject);
  });
}
