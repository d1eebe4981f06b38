import { isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls, createSecureContext, type TLSSocket } from 'node:tls';
import type { HostAndPort } from './addresses.ts';
import { withDeadline } from './deadline.ts';
import type { Dialer } from './dialer.ts';

/** TLS trust and client credentials, all PEM. */
export interface TlsIdentity {
  /** Certificate authorities that are trusted; null: Node's list of public ones. */
  ca: string | null;
  /** The client's certificate (with its chain) and key; null when the client authenticates otherwise. */
  client: { cert: string; key: string } | null;
}

/** A TLS server. */
export interface TlsPeer extends HostAndPort {
  /** The certificate must be valid for the host; IPv6 with or without brackets. */
  tls: TlsIdentity;
}

/** Why a TLS connection failed. */
export type TlsErrorReason =
  | 'untrusted'
  | 'wrong_name'
  | 'expired'
  /** The peer does not use TLS on this port. */
  | 'not_tls'
  /** The peer requires a client certificate, or refused the one that was sent. */
  | 'client_refused'
  | 'other';

/** Opens one connection to one server, ready for HTTP. */
export type Connector = (signal: AbortSignal) => Promise<ConnectorStream>;

export interface ConnectorStream extends Duplex {
  /** Called when the stream has ended or failed. @returns the error that explains its end, for the requests on it. */
  findEndError?(): Promise<Error | undefined>;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Keeps network devices from dropping an idle connection, and detects a lost peer. */
const TCP_KEEPALIVE_MS = 15_000;

/**
 * Connects through the dialer and performs the TLS handshake.
 * @throws AppError of the dialer; `upstream_unreachable` with Node's error as its cause ({@link findTlsErrorReason}
 *   reads it), `upstream_timeout`; or the reason of `signal`. Error, at once, for an invalid client key or
 *   certificate.
 */
export function createTlsConnector(dialer: Dialer, peer: TlsPeer): Connector {
  const handshake = createTlsHandshake(peer);
  return async (signal) => handshake(await dialer.connect(peer.host, peer.port, signal), signal);
}

/**
 * The handshake only, for callers that report each step.
 * @throws as {@link createTlsConnector}, except the dialer's errors.
 */
export function createTlsHandshake(peer: Omit<TlsPeer, 'port'>) {
  const { ca, client } = peer.tls;
  const host = peer.host.replace(/^\[|\]$/g, '');
  // Parsed once: the key is then in OpenSSL's memory, and its text is not retained here.
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
      // SNI permits names only (RFC 6066); an address is compared with the certificate as `host`.
      servername: isIP(host) === 0 ? host : '',
      secureContext,
      ALPNProtocols: ['http/1.1'],
      rejectUnauthorized: true, // Explicit, so that NODE_TLS_REJECT_UNAUTHORIZED cannot turn it off.
    });
    try {
      return await withDeadline(HANDSHAKE_TIMEOUT_MS, [signal], (handshakeSignal) =>
        waitForHandshake(secured, handshakeSignal),
      );
    } catch (error) {
      secured.destroy();
      throw error;
    }
  };
}

function waitForHandshake(socket: TLSSocket, signal: AbortSignal): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    // Stays attached: an unhandled error of an idle socket would end the process.
    socket.on('error', reject);
    socket.once('close', () => reject(new Error('closed during the handshake')));
    socket.once('secureConnect', () => resolve(socket));
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}

/** Finds the TLS reason of an error or of its causes; undefined when the error is not about TLS. */
export function findTlsErrorReason(error: unknown): TlsErrorReason | undefined {
  // Checks members, not the class: in a vm context, Node's errors have another realm's classes.
  for (let cause = error; typeof cause === 'object' && cause !== null; cause = (cause as Error).cause) {
    const { code } = cause as { code?: unknown };
    const reason = typeof code === 'string' ? findReasonForCode(code) : undefined;
    if (reason !== undefined) return reason;
  }
  return undefined;
}

/** The codes are Node's names of OpenSSL's verify results, and `ERR_SSL_` with OpenSSL's reason. */
function findReasonForCode(code: string): TlsErrorReason | undefined {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'wrong_name';
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') return 'expired';
  if (/^(DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|CERT_|INVALID_CA|INVALID_PURPOSE)/.test(code))
    return 'untrusted';
  if (/^ERR_SSL_(WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST)/.test(code)) return 'not_tls';
  // Alerts from the peer that concern our certificate.
  if (/ALERT_(BAD_CERT|CERTIFICATE|UNKNOWN_CA|UNSUPPORTED_CERT|ACCESS_DENIED|HANDSHAKE_FAILURE)/.test(code))
    return 'client_refused';
  return code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_') ? 'other' : undefined;
}
