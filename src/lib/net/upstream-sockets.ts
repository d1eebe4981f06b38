import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { rejectOnAbort } from '../async/reject-on-abort.ts';
import { upstreamTimeout, upstreamUnreachable } from './deadline.ts';
import { endpointForbidden, effectivePort, type AllowedAddress, type EgressPolicy } from './egress.ts';
import { createSystemHostLookup, resolveHost, type HostLookup } from './dns.ts';

export interface DialOptions {
  policy: EgressPolicy;
  /** For tests. */
  lookup?: HostLookup;
  /** TCP and TLS together, divided among the addresses of a name. */
  connectTimeoutMs: number;
}

/** A connected socket, and whether its address is public. The operator's addresses count as public. */
export type DialedSocket = [socket: Socket, isPublic: boolean];

/** Connects to the host of `url`. The signal closes a connecting socket at once. */
export type Dial = (url: URL, guarded: boolean, signal: AbortSignal) => Promise<DialedSocket>;

/** The only code that opens sockets to upstreams. Guarded ones go to addresses that the policy allows. */
export function createDial(options: DialOptions): Dial {
  const lookup = options.lookup ?? createSystemHostLookup();

  async function resolveOperatorHost(host: string): Promise<AllowedAddress[]> {
    const addresses = await resolveHost(host, lookup);
    return addresses.map((address) => ({ address, isPublic: true }));
  }

  return async (url, guarded, signal) => {
    const port = effectivePort(url);
    const resolution = guarded
      ? options.policy.resolveAllowed(url.hostname, port, signal)
      : resolveOperatorHost(url.hostname);
    const targets = await rejectOnAbort(resolution, signal);
    const attemptMs = options.connectTimeoutMs / targets.length;
    let lastError: unknown = endpointForbidden();
    // In the order of the lookup, which puts the address that is most likely reachable first.
    for (const { address, isPublic } of targets) {
      try {
        return [await openSocket(url, address, attemptMs, signal), isPublic];
      } catch (error) {
        signal.throwIfAborted();
        lastError = error;
      }
    }
    throw lastError;
  };
}

function openSocket(url: URL, address: string, timeoutMs: number, signal: AbortSignal): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = startSocket(url, address);
  const fail = (error: unknown) => {
    socket.destroy();
    reject(error);
  };
  const onAbort = () => {
    fail(signal.reason);
  };
  const timer = setTimeout(() => {
    fail(upstreamTimeout('accept a connection'));
  }, timeoutMs);
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  // Stays attached: an unhandled error of an idle socket would end the process.
  socket.on('error', (error) => {
    reject(upstreamUnreachable(error));
  });
  socket.once('close', () => {
    reject(upstreamUnreachable(new Error('closed while connecting')));
  });
  socket.once(url.protocol === 'https:' ? 'secureConnect' : 'connect', () => {
    socket.setNoDelay(true);
    resolve(socket);
  });
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  });
}

/** Dials exactly `address`. The name in `url` is sent as SNI, and the certificate must be valid for it. */
function startSocket(url: URL, address: string): Socket {
  const target = { host: address, port: effectivePort(url), keepAlive: true, keepAliveInitialDelay: 60_000 };
  if (url.protocol !== 'https:') return connectTcp(target);
  // SNI permits names only (RFC 6066); for a literal, the address is compared with the certificate.
  const isName = isIP(url.hostname.replace(/^\[|\]$/g, '')) === 0;
  return connectTls({
    ...target,
    ...(isName ? { servername: url.hostname } : {}),
    ALPNProtocols: ['http/1.1'],
    rejectUnauthorized: true, // Explicit, so that NODE_TLS_REJECT_UNAUTHORIZED cannot turn it off.
  });
}
