import { isIPv6, type Socket } from 'node:net';
import { createUpstreamConnections } from './upstream-connections.ts';
import { rejectOnAbort, withDeadline } from './deadline.ts';
import {
  createEgressPolicy,
  endpointForbidden,
  parseEndpoint,
  effectivePort,
  type EgressOptions,
} from './egress.ts';
import { AppError, isAppError } from '../errors.ts';
import { sendUpstreamRequest, type UpstreamResponse, type UpstreamRequest } from './http-request.ts';

export type { UpstreamResponse, UpstreamRequest } from './http-request.ts';

export interface DialerOptions extends Omit<EgressOptions, 'ownAddresses'> {
  /** Look-up, TCP and TLS together. */
  connectTimeoutMs: number;
}

export interface Dialer {
  /**
   * Sends one request. Nothing is retried once a byte of it was sent.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, `endpoint_forbidden`; or the signal's reason.
   */
  request(request: UpstreamRequest): Promise<UpstreamResponse>;
  /**
   * Reads an endpoint that a user brought and checks that it may be reached now. Takes 3 s at most.
   * @throws AppError `endpoint_forbidden` with a coarse reason, also when its name is not found in that time.
   */
  checkEndpoint(text: string): Promise<URL>;
  /**
   * Connects to a host and port that a user brought, by the same policy. The socket has `TCP_NODELAY` set and no
   * TLS; whoever adds TLS says the name again. The caller closes it.
   * @param host name or address, IPv6 with or without brackets.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, `endpoint_forbidden`; or the signal's reason.
   */
  connect(host: string, port: number, signal: AbortSignal): Promise<Socket>;
  /** Closes every connection; requests under way fail with `upstream_unreachable`. */
  close(): Promise<void>;
}

const ENDPOINT_CHECK_TIMEOUT_MS = 3_000;

/**
 * Builds the one way out of this process to upstreams: no redirects, no proxy of the environment, and
 * for addresses that users bring, the policy of `egress.ts` on every new connection.
 * @throws Error naming the entry when `allow` or `deny` holds one that is not a rule.
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
      const { url, guarded, signal } = request;
      const isPlainHttpUrl = /^https?:$/.test(url.protocol) && url.username === '' && url.password === '';
      if (!isPlainHttpUrl) throw endpointForbidden();
      for (;;) {
        signal.throwIfAborted();
        const connection = await connections.acquire(url, guarded, signal);
        const response = await sendUpstreamRequest(connection, request);
        // An idle connection that had ended unnoticed: take the next one, in the end a new one.
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
        throw isAppError(cause, 'endpoint_forbidden') ? cause : endpointHostNotFound(cause);
      });
      return url;
    },
    close: () => connections.close(),
  };
}

/** To the one who brings an endpoint, a name that nobody answers for is a fault of the endpoint. */
function endpointHostNotFound(cause: unknown): AppError {
  return new AppError('endpoint_forbidden', "The endpoint's host could not be found.", { cause });
}
