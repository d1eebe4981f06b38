import { gzipSync } from 'node:zlib';
import type { Answer, HeaderLines } from './exchange.ts';
import { completionBody, completionFrames, DONE, wantsStream, type CompletionOptions } from './frames.ts';
import { ALLOWED_HEADERS, HOSTILE_HEADERS } from './hostile-headers.ts';

export const EVENT_STREAM = 'text/event-stream; charset=utf-8';

/** One step of a streamed body: bytes to send, a rest, or an event to wait for. */
type Step = string | Uint8Array | { pauseMs: number } | { until: Promise<unknown> };

export interface ReplyOptions {
  /** 200 by default. */
  status?: number;
  /** `content-type` is JSON unless set; `content-length` is added. */
  headers?: HeaderLines;
  /** Text and bytes go out as they are, anything else as JSON. */
  body?: unknown;
}

/** A whole answer. */
function reply(options: ReplyOptions = {}): Answer {
  return (exchange) => {
    const body = bytesOf(options.body ?? {});
    const lines = linesOf(options.headers);
    if (!lines.some(([name]) => name.toLowerCase() === 'content-type')) {
      lines.push(['content-type', 'application/json']);
    }
    // HTTP has trailers in chunked answers only.
    const isChunked = lines.some(([name]) => name.toLowerCase() === 'trailer');
    if (!isChunked) lines.push(['content-length', String(body.length)]);
    exchange.head(options.status ?? 200, lines);
    return exchange.end(body);
  };
}

/** A chat completion, streamed when the request asks for it. What every request gets unless scripted otherwise. */
function completion(options: CompletionOptions & { headers?: HeaderLines } = {}): Answer {
  return (exchange) => {
    const { headers = {} } = options;
    const next = wantsStream(exchange.request)
      ? steps([...completionFrames(exchange.request, options), DONE], { headers })
      : reply({ headers, body: completionBody(exchange.request, options) });
    return next(exchange);
  };
}

/** An event stream made of the given steps; it ends in order after the last. */
function steps(list: readonly Step[], options: { status?: number; headers?: HeaderLines } = {}): Answer {
  return async (exchange) => {
    exchange.head(options.status ?? 200, [['content-type', EVENT_STREAM], ...linesOf(options.headers)]);
    for (const step of list) {
      if (typeof step === 'string' || step instanceof Uint8Array) await exchange.write(step);
      else if ('pauseMs' in step) await exchange.pause(step.pauseMs);
      else await exchange.until(step.until);
    }
    await exchange.end();
  };
}

/** A streamed completion sent in writes of `bytes` bytes, so that frames and code points are cut anywhere. */
function chopped(bytes: number, options: CompletionOptions = {}): Answer {
  return (exchange) => {
    const whole = Buffer.from([...completionFrames(exchange.request, options), DONE].join(''));
    const count = Math.ceil(whole.length / bytes);
    const pieces = Array.from({ length: count }, (_, index) =>
      whole.subarray(index * bytes, (index + 1) * bytes),
    );
    // A rest of 0 lets each piece leave in a packet of its own.
    return steps(pieces.flatMap((piece): Step[] => [piece, { pauseMs: 0 }]))(exchange);
  };
}

/** A streamed completion with `comments` (keep-alives) before the first frame and between all frames. */
function commented(comment = ': keep-alive\n\n', options: CompletionOptions = {}): Answer {
  return (exchange) =>
    steps([...completionFrames(exchange.request, options), DONE].flatMap((one) => [comment, one]))(exchange);
}

/** A streamed completion that waits after `afterFrames` frames until `event`. */
function held(afterFrames: number, event: Promise<unknown>, options: CompletionOptions = {}): Answer {
  return (exchange) => {
    const frames = [...completionFrames(exchange.request, options), DONE];
    return steps([...frames.slice(0, afterFrames), { until: event }, ...frames.slice(afterFrames)])(exchange);
  };
}

/** A stream without an end: one frame of `frameBytes` after the other, as fast as the client takes them. */
function endlessStream({ frameBytes = 1024, everyMs = 0 } = {}): Answer {
  return async (exchange) => {
    const one = completionFrames(exchange.request, { text: 'x'.repeat(frameBytes) })[1] ?? '';
    exchange.head(200, { 'content-type': EVENT_STREAM });
    for (;;) {
      await exchange.write(one);
      // Without any rest, a client in the same process would get no turn.
      await exchange.pause(everyMs);
    }
  };
}

interface ErrorOptions {
  message?: string;
  type?: string;
  code?: string | null;
  param?: string | null;
  headers?: HeaderLines;
}

/** An error in OpenAI's shape and, where it has them, in OpenAI's words. */
function error(status: number, options: ErrorOptions = {}): Answer {
  const known = KNOWN_ERRORS[status] ?? {
    message: `Upstream error ${status}.`,
    type: 'server_error',
    code: null,
  };
  const { headers = {}, ...own } = options;
  return reply({ status, headers, body: { error: { ...known, param: null, ...own } } });
}

const KNOWN_ERRORS: Readonly<Record<number, { message: string; type: string; code: string | null }>> = {
  400: { message: 'Invalid request.', type: 'invalid_request_error', code: null },
  401: { message: 'Incorrect API key provided.', type: 'invalid_request_error', code: 'invalid_api_key' },
  402: { message: 'Insufficient credits.', type: 'insufficient_quota', code: 'insufficient_quota' },
  403: {
    message: 'Country, region, or territory not supported.',
    type: 'request_forbidden',
    code: 'unsupported_country_region_territory',
  },
  404: { message: 'The model does not exist.', type: 'invalid_request_error', code: 'model_not_found' },
  429: { message: 'Rate limit reached.', type: 'requests', code: 'rate_limit_exceeded' },
  500: { message: 'The server had an error.', type: 'server_error', code: null },
  503: { message: 'The engine is overloaded.', type: 'service_unavailable', code: null },
  529: { message: 'Overloaded.', type: 'overloaded_error', code: null },
};

/** A 429 with the deadline in all the headers that providers use for it. */
function rateLimited(retryAfterSeconds = 20): Answer {
  return error(429, {
    headers: {
      'retry-after': String(retryAfterSeconds),
      'x-ratelimit-limit-requests': '60',
      'x-ratelimit-remaining-requests': '0',
      'x-ratelimit-reset-requests': `${retryAfterSeconds}s`,
    },
  });
}

/** An error whose body and headers repeat the caller's key, raw and as JSON, base64 and percent text have it. */
function keyEcho(status = 401): Answer {
  return (exchange) => {
    const key = exchange.request.key ?? '';
    const forms = [key, JSON.stringify(key), Buffer.from(key).toString('base64'), encodeURIComponent(key)];
    return error(status, {
      message: `Incorrect API key provided: ${forms.join(' ')}`,
      headers: { 'request-id': key },
    })(exchange);
  };
}

function redirect(status: 301 | 302 | 303 | 307 | 308, location: string): Answer {
  return reply({ status, headers: { location }, body: {} });
}

/** Status 200 and a web page. */
function html(status = 200): Answer {
  const body = '<!doctype html><html><body><script>alert(1)</script>Welcome</body></html>';
  return reply({ status, headers: { 'content-type': 'text/html; charset=utf-8' }, body });
}

/** A good completion in gzip, though nobody asked for that. */
function gzipped(options: CompletionOptions = {}): Answer {
  return (exchange) => {
    const isStream = wantsStream(exchange.request);
    const plain = isStream
      ? [...completionFrames(exchange.request, options), DONE].join('')
      : JSON.stringify(completionBody(exchange.request, options));
    const type = isStream ? EVENT_STREAM : 'application/json';
    return reply({
      headers: { 'content-type': type, 'content-encoding': 'gzip' },
      body: gzipSync(plain),
    })(exchange);
  };
}

/** A good completion with all of `HOSTILE_HEADERS`, and with `ALLOWED_HEADERS`, which may pass. */
function hostileHeaders(options: CompletionOptions = {}): Answer {
  return completion({ ...options, headers: [...ALLOWED_HEADERS, ...HOSTILE_HEADERS] });
}

function models(ids: readonly string[] = ['upstream-model']): Answer {
  const data = ids.map((id) => ({ id, object: 'model', created: 1_700_000_000, owned_by: 'upstream' }));
  return reply({ body: { object: 'list', data } });
}

function linesOf(headers: HeaderLines = {}): [string, string][] {
  const lines: readonly (readonly [string, string])[] = Array.isArray(headers)
    ? headers
    : Object.entries(headers);
  return lines.map(([name, value]) => [name, value]);
}

function bytesOf(body: unknown): Buffer {
  if (body instanceof Uint8Array) return Buffer.from(body);
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
}

/** Answers that an upstream in good order could give. */
export const answer = {
  reply,
  completion,
  steps,
  chopped,
  commented,
  held,
  endlessStream,
  error,
  rateLimited,
  keyEcho,
  redirect,
  html,
  gzipped,
  hostileHeaders,
  models,
};
