import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import { createConnections, notSent, tooSlow, unreachable, type Connection } from './connections.ts';
import {
  createEgressPolicy,
  forbidden,
  parseEndpoint,
  portOf,
  type EgressOptions,
  type Lookup,
  type Spot,
} from './egress.ts';
import { AppError, isAppError } from './errors.ts';

export interface DialerOptions {
  mode: 'local' | 'deployed';
  /** EGRESS_ALLOW; undefined is the mode's default. */
  allow: string[] | undefined;
  /** EGRESS_DENY. */
  deny: string[];
  /** Our own listeners, database and Keycloak (names allowed); asked anew on every look-up. */
  forbidden: () => readonly Spot[];
  /** For tests; default is the system's resolver. */
  lookup?: Lookup;
  /** Look-up, TCP and TLS together. */
  connectTimeoutMs: number;
}

export interface UpstreamRequest {
  url: URL;
  method: 'GET' | 'POST';
  headers: Record<string, string>;
  body?: Buffer | string;
  /** True when a user brought the address; false for addresses of the operator or of a provider's file. */
  guarded: boolean;
  /** Ends the request in any phase; its reason is what `request` or the body then fails with. */
  signal: AbortSignal;
  /** From sending the request to the headers of the answer. */
  firstByteTimeoutMs: number;
  /** Between two pieces of the body; time in which the reader holds back does not count. */
  idleTimeoutMs: number;
}

export interface UpstreamAnswer {
  /** As the upstream said; redirects are not followed. */
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /**
   * The body as sent, not decompressed. When it fails, the reader gets an AppError
   * (`upstream_unreachable` when the upstream broke off, `upstream_timeout` when it fell silent), or the
   * signal's reason; pieces that were not read until then are dropped. Destroying it closes the connection.
   */
  body: Readable;
  /** False when the address dialled is not public (guarded requests only). */
  fromPublicAddress: boolean;
}

export interface Dialer {
  /**
   * Sends one request. Nothing is retried once a byte of it was sent.
   * @throws AppError `upstream_unreachable`, `upstream_timeout`, `endpoint_forbidden`; or the signal's reason.
   */
  request(request: UpstreamRequest): Promise<UpstreamAnswer>;
  /**
   * Reads an endpoint that a user brought and checks that it may be reached now.
   * @throws AppError `endpoint_forbidden` with a coarse reason, also when its name is not found.
   */
  checkEndpoint(text: string): Promise<URL>;
  /** Closes every connection; requests under way fail with `upstream_unreachable`. */
  close(): Promise<void>;
}

/**
 * Builds the one way out of this process to upstreams: no redirects, no proxy of the environment, and
 * for addresses that users bring, the policy of `egress.ts` on every new connection.
 * @throws Error naming the entry when `allow` or `deny` holds one that is not a rule.
 */
export function createDialer(options: DialerOptions): Dialer {
  const policy = createEgressPolicy(options satisfies EgressOptions);
  const connections = createConnections({
    policy,
    connectTimeoutMs: options.connectTimeoutMs,
    ...(options.lookup === undefined ? {} : { lookup: options.lookup }),
  });

  return {
    async request(request) {
      const { url, guarded, signal } = request;
      const isPlain = /^https?:$/.test(url.protocol) && url.username === '' && url.password === '';
      if (!isPlain) throw forbidden();
      for (;;) {
        signal.throwIfAborted();
        const connection = await connections.acquire(url, guarded, signal);
        const answer = await exchange(connection, request);
        // An idle connection that had ended unnoticed: take the next one, in the end a new one.
        if (answer !== undefined) return answer;
      }
    },
    async checkEndpoint(text) {
      const url = parseEndpoint(text);
      await policy.admit(url.hostname, portOf(url)).catch((cause: unknown) => {
        throw isAppError(cause, 'upstream_unreachable')
          ? new AppError('endpoint_forbidden', "The endpoint's host could not be found.", { cause })
          : cause;
      });
      return url;
    },
    close: () => connections.close(),
  };
}

/**
 * One request and its answer over one connection, by undici's dispatch: what `request()` of undici does,
 * with exact timers that rest while the reader holds back.
 * @returns undefined when the connection had ended before anything was sent.
 */
function exchange(connection: Connection, request: UpstreamRequest): Promise<UpstreamAnswer | undefined> {
  const { url, signal } = request;
  const answer = Promise.withResolvers<UpstreamAnswer | undefined>();
  let body: Readable | undefined;
  let controller: Dispatcher.DispatchController | undefined;
  let isPaused = false;
  let isOver = false;
  let timer = setTimeout(() => {
    stop(tooSlow('answer'));
  }, request.firstByteTimeoutMs);

  /** Ends the exchange as failed; harmless when it has ended before. */
  function stop(error: unknown): void {
    if (!isOver) connection.discard();
    finish();
    // Both without effect where the answer, or its body, is through.
    if (body === undefined) forget();
    body?.destroy(error as Error);
    answer.reject(error);
  }
  function finish(): void {
    isOver = true;
    clearTimeout(timer);
  }
  const onAbort = () => {
    stop(signal.reason);
  };
  const forget = () => {
    signal.removeEventListener('abort', onAbort);
  };

  function createBody(): Readable {
    const stream = new Readable({
      read() {
        if (!isPaused || isOver) return;
        isPaused = false;
        timer.refresh();
        controller?.resume();
      },
      destroy(error, done) {
        if (!isOver) connection.discard();
        finish();
        forget();
        done(error);
      },
    });
    // A body that fails before anyone reads it must not end the process; readers get the error all the same.
    return stream.on('error', () => undefined);
  }

  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  connection.client.dispatch(
    {
      origin: url.origin,
      path: url.pathname + url.search,
      method: request.method,
      headers: request.headers,
      body: request.body ?? null,
    },
    {
      onRequestStart(started) {
        controller = started;
      },
      onResponseStart(_controller, status, headers) {
        if (status < 200) return;
        clearTimeout(timer);
        timer = setTimeout(() => {
          if (!isPaused) stop(tooSlow('go on with its answer'));
        }, request.idleTimeoutMs);
        body = createBody();
        answer.resolve({ status, headers, body, fromPublicAddress: connection.isPublic });
      },
      onResponseData(_controller, piece) {
        if (isOver) return;
        timer.refresh();
        if (body?.push(piece) !== false) return;
        isPaused = true;
        controller?.pause();
      },
      onResponseEnd() {
        finish();
        connection.release();
        body?.push(null);
      },
      onResponseError(_controller, error) {
        if (error === notSent && connection.isReused) {
          finish();
          forget();
          answer.resolve(undefined);
        } else stop(isOurMistake(error) ? error : unreachable(error));
      },
    },
  );
  return answer.promise;
}

/** Headers or a path that cannot be sent: no fault of the upstream. */
function isOurMistake(error: Error): boolean {
  return (error as { code?: unknown }).code === 'UND_ERR_INVALID_ARG';
}
