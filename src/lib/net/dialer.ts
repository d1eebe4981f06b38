import { isIPv6, type Socket } from 'node:net';
import { createUpstreamConnections } from './upstream-connections.ts';
import { rejectOnAbort } from '../async/reject-on-abort.ts';
import { withDeadline } from './deadline.ts';
import {
  createEgressPolicy,
  endpointForbidden,
  parseEndpoint,
  effectivePort,
  type EgressOptions,
} from './egress.ts';
import { isAppError } from '../errors.ts';
import { sendUpstreamRequest, type UpstreamResponse, type UpstreamRequest } from './http-request.ts';

export type { UpstreamResponse, UpstreamRequest } from './http-request.ts';

export interface DialerOptions extends Omit<EgressOptions, 'ownAddresses'> {
  /** DNS lookup, TCP and TLS together. */
  connectTimeoutMs: number;
}

export interface Dialer {
  /**
   * Sends one request. It is not retried once a byte of it was sent.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, `endpoint_forbidden`; or the signal's reason.
   */
  request(request: UpstreamRequest): Promise<UpstreamResponse>;
  /**
   * Reads a user's endpoint and checks that it is allowed now. Takes at most 3 s.
   * @throws AppError `endpoint_forbidden` with a coarse reason, also when its name is not resolved in that time.
   */
  checkEndpoint(text: string): Promise<URL>;
  /**
   * Connects to a user's host and port, by the same policy. The socket has `TCP_NODELAY` set and no TLS; a caller
   * that adds TLS passes the host name again. The caller closes the socket.
   * @param host name or address, IPv6 with or without brackets.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, `endpoint_forbidden`; or the signal's reason.
   */
  connect(host: string, port: number, signal: AbortSignal): Promise<Socket>;
  /** Closes every connection; open requests fail with `upstream_unreachable`. */
  close(): Promise<void>;
}

const ENDPOINT_CHECK_TIMEOUT_MS = 3_000;

/**
 * All requests to upstreams go through the dialer. It follows no redirects and ignores the environment's proxy
 * settings. It applies the policy of `egress.ts` to every new connection to a user's address.
 * @throws Error naming the invalid entry of `allow` or `deny`.
 */
export function createDialer(options: DialerOptions): Dialer {
  const policy = createEgressPolicy(options);
  const connections = createUpstreamConnections({
    policy,
    connectTimeoutMs: options.connectTimeoutMs,
    ...(options.lookup === undefined ? {} : { lookup: options.lookup }),
  });

  return {
    async request(request) {
      const { url, isGuarded, signal } = request;
      const isPlainHttpUrl = /^https?:$/.test(url.protocol) && url.username === '' && url.password === '';
      if (!isPlainHttpUrl) throw endpointForbidden();
      for (;;) {
        signal.throwIfAborted();
        const connection = await connections.acquire(url, isGuarded, signal);
        const response = await sendUpstreamRequest(connection, request);
        // The idle connection had been closed by the upstream: use the next one, finally a new one.
        if (response !== undefined) return response;
      }
    },
    async connect(host, port, signal) {
      const name = isIPv6(host) ? `[${host}]` : host;
      return await connections.connect(parseEndpoint(`http://${name}:${port}`), signal);
    },
    async checkEndpoint(text) {
      const url = parseEndpoint(text);
      await withDeadline(ENDPOINT_CHECK_TIMEOUT_MS, [], (signal) =>
        rejectOnAbort(policy.resolveAllowed(url.hostname, effectivePort(url), signal), signal),
      ).catch((cause: unknown) => {
        // A name that is not resolved in time, too: how long a lookup takes must not tell whether the name exists.
        throw isAppError(cause, 'endpoint_forbidden') ? cause : endpointForbidden();
      });
      return url;
    },
    close: () => connections.close(),
  };
}
