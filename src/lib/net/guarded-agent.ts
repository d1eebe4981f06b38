import { isIP, type Socket } from 'node:net';
import { Agent } from 'node:https';
import type { Duplex } from 'node:stream';
import { connect as connectTls, createSecureContext, type TLSSocket } from 'node:tls';
import { upstreamUnreachable, withDeadline } from './deadline.ts';
import type { Dialer } from './dialer.ts';

/** Whom to trust and how to identify oneself, all PEM. */
export interface TlsIdentity {
  /** Certificate authorities of the server; null is the public ones that Node brings. */
  ca: string | null;
  /** The client's certificate (with its chain) and key; null where the server is shown another proof. */
  client: { cert: string; key: string } | null;
}

/** A server that is reached through the dialer. */
export interface TlsPeer {
  /** Name or address, IPv6 with or without brackets: what the certificate must show. */
  host: string;
  port: number;
  tls: TlsIdentity;
}

/** What is wrong with a TLS connection, as far as it helps people. */
export type TlsErrorReason =
  | 'untrusted'
  | 'wrong_name'
  | 'expired'
  /** The peer speaks something else on this port. */
  | 'not_tls'
  /** The peer wants another client certificate, or any. */
  | 'client_refused'
  | 'other';

/** Opens one connection to one server, ready for HTTP. */
export type Connector = (signal: AbortSignal) => Promise<Duplex>;

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Keeps a silent connection from being forgotten by what lies between, and finds out that its peer is gone. */
const TCP_KEEPALIVE_MS = 15_000;
const IDLE_TIMEOUT_MS = 15_000;
const MAX_IDLE_SOCKETS = 4;

/**
 * TLS over a socket of the dialer.
 * @throws AppError of the dialer; `upstream_unreachable` with what Node found as its cause ({@link findTlsErrorReason}
 *   reads it), `upstream_timeout`; or the reason of `signal`. Error, at once, for a client key or certificate that
 *   is none.
 */
export function createTlsConnector(dialer: Dialer, peer: TlsPeer): Connector {
  const handshake = createTlsHandshake(peer);
  return async (signal) => handshake(await dialer.connect(peer.host, peer.port, signal), signal);
}

/**
 * The handshake alone, for whoever looks at the steps one by one.
 * @throws what {@link createTlsConnector} throws, except of the dialer.
 */
export function createTlsHandshake(peer: Omit<TlsPeer, 'port'>) {
  const { ca, client } = peer.tls;
  const host = peer.host.replace(/^\[|\]$/g, '');
  // Parsed once: the key then lies in OpenSSL's memory, and no text of it is kept here.
  const secureContext = createSecureContext({
    ...(ca !== null && { ca }),
    ...client,
    minVersion: 'TLSv1.2',
  });
  return async (socket: Socket, signal: AbortSignal): Promise<TLSSocket> => {
    socket.setKeepAlive(true, TCP_KEEPALIVE_MS);
    const secured = connectTls({
      socket,
      host,
      // SNI holds names only (RFC 6066); a literal is compared with the certificate as `host`.
      servername: isIP(host) === 0 ? host : '',
      secureContext,
      ALPNProtocols: ['http/1.1'],
      rejectUnauthorized: true, // Said aloud, so that no environment variable turns it off.
    });
    try {
      return await withDeadline(HANDSHAKE_TIMEOUT_MS, [signal], (phase) => waitForHandshake(secured, phase));
    } catch (error) {
      secured.destroy();
      throw error;
    }
  };
}

function waitForHandshake(socket: TLSSocket, signal: AbortSignal): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    // Stays for good: an error on an idle socket must not end the process.
    socket.on('error', reject);
    socket.once('close', () => reject(new Error('closed during the handshake')));
    socket.once('secureConnect', () => resolve(socket));
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}

/** Reads out of an error, or its causes, what is wrong with a TLS connection; undefined where it is not about TLS. */
export function findTlsErrorReason(error: unknown): TlsErrorReason | undefined {
  // By its members, not its class: Node's own errors are of another realm where a program runs in a context.
  for (let cause = error; typeof cause === 'object' && cause !== null; cause = (cause as Error).cause) {
    const { code } = cause as { code?: unknown };
    const reason = typeof code === 'string' ? findReasonForCode(code) : undefined;
    if (reason !== undefined) return reason;
  }
  return undefined;
}

/** The codes are Node's names of OpenSSL's verify results, and OpenSSL's reasons behind `ERR_SSL_`. */
function findReasonForCode(code: string): TlsErrorReason | undefined {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'wrong_name';
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') return 'expired';
  if (/^(DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|CERT_|INVALID_CA|INVALID_PURPOSE)/.test(code))
    return 'untrusted';
  if (/^ERR_SSL_(WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST)/.test(code)) return 'not_tls';
  // Alerts come from the peer, and these are about what we have shown it.
  if (/ALERT_(BAD_CERT|CERTIFICATE|UNKNOWN_CA|UNSUPPORTED_CERT|ACCESS_DENIED|HANDSHAKE_FAILURE)/.test(code))
    return 'client_refused';
  return code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_') ? 'other' : undefined;
}

/** An agent for HTTP clients, with a way to let go of it that leaves work under way alone. */
export interface GuardedAgent {
  /** For `https` requests whatever the connector opens: TLS, where there is any, is the connector's. */
  readonly agent: Agent;
  /** Closes what is idle, and the rest as it becomes idle. */
  closeWhenIdle(): void;
  /** Closes everything, also what is being opened. */
  close(): void;
}

/**
 * An agent that opens connections by `connect` alone: no look-up, no proxy of the environment, no socket path and
 * no TLS setting of a request can lead it elsewhere. Idle connections are kept for 15 s, four at most.
 */
export function createGuardedAgent(connect: Connector): GuardedAgent {
  const closing = new AbortController();
  const agent = new Agent({ keepAlive: true, maxFreeSockets: MAX_IDLE_SOCKETS, scheduling: 'lifo' });
  const expiries = new WeakMap<Duplex, NodeJS.Timeout>();
  agent.createConnection = (_options: unknown, done?: (error: Error | null, stream: Duplex) => void) => {
    connect(closing.signal).then(
      (stream) => {
        if (closing.signal.aborted) stream.destroy();
        done?.(null, withSocketMethods(stream));
      },
      (error: unknown) => done?.(error as Error, undefined as never),
    );
    return undefined;
  };
  // Node's hooks for the two ends of an idle time. Timed here, since streams of SSH have no time-outs.
  // (What the first answers, whether to keep the connection, is missing in its type.)
  const keepAlive: (stream: Duplex) => unknown = agent.keepSocketAlive.bind(agent);
  const reuse = agent.reuseSocket.bind(agent);
  agent.keepSocketAlive = (stream) => {
    expiries.set(stream, setTimeout(() => stream.destroy(), IDLE_TIMEOUT_MS).unref());
    return keepAlive(stream);
  };
  agent.reuseSocket = (stream, request) => {
    clearTimeout(expiries.get(stream));
    reuse(stream, request);
  };
  return {
    agent,
    closeWhenIdle() {
      agent.maxFreeSockets = 0;
      for (const idle of Object.values(agent.freeSockets)) for (const socket of idle ?? []) socket.destroy();
    },
    close() {
      closing.abort(upstreamUnreachable(new Error('closed')));
      agent.destroy();
    },
  };
}

/** Gives a stream that is no socket what Node's HTTP client calls on sockets. */
function withSocketMethods(stream: Duplex): Duplex {
  const absent = ['setTimeout', 'setKeepAlive', 'setNoDelay', 'ref', 'unref'].filter(
    (name) => !(name in stream),
  );
  return Object.assign(stream, Object.fromEntries(absent.map((name) => [name, () => stream])));
}
