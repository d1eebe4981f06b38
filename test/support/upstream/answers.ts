import { gzipSync } from 'node:zlib';
import type { Answer, HeaderLines } from './response-writer.ts';
import { protocolOf, wantsStream, wholeFrames, type CompletionOptions } from './frames.ts';
import { ALLOWED_HEADERS, HOSTILE_HEADERS } from './hostile-headers.ts';

export const EVENT_STREAM = 'text/event-stream; charset=utf-8';

/** One step of a streamed body: bytes to send, a pause, or an event to wait for. */
type Step = string | Uint8Array | { pauseMs: number } | { until: Promise<unknown> };

interface HeadOptions {
  /** 200 by default. */
  status?: number;
  headers?: HeaderLines;
  /** Null: none. By default the usual one, or that of `headers`. */
  contentType?: string | null;
}

export interface ReplyOptions extends HeadOptions {
  /** Text and bytes are sent unchanged, anything else as JSON. */
  body?: unknown;
}

/** A complete response; JSON unless its headers say otherwise. `content-length` is added. */
function reply(options: ReplyOptions = {}): Answer {
  return (writer) => {
    const body = toBytes(options.body ?? {});
    const lines = toHead(options, 'application/json');
    // HTTP allows trailers in chunked responses only.
    const isChunked = lines.some(([name]) => name.toLowerCase() === 'trailer');
    if (!isChunked) lines.push(['content-length', String(body.length)]);
    writer.head(options.status ?? 200, lines);
    return writer.end(body);
  };
}

/** A chat completion or a message, by the path of the request, streamed when the request has `stream: true`. This is the default answer. */
function completion(options: CompletionOptions & { headers?: HeaderLines } = {}): Answer {
  return (writer) => {
    const { headers = {} } = options;
    const next = wantsStream(writer.request)
      ? steps(wholeFrames(writer.request, options), { headers })
      : reply({ headers, body: protocolOf(writer.request).body(writer.request, options) });
    return next(writer);
  };
}

/** An event stream of the given steps. It ends correctly after the last. */
function steps(list: readonly Step[], options: HeadOptions = {}): Answer {
  return async (writer) => {
    writer.head(options.status ?? 200, toHead(options, EVENT_STREAM));
    for (const step of list) {
      if (typeof step === 'string' || step instanceof Uint8Array) await writer.write(step);
      else if ('pauseMs' in step) await writer.delay(step.pauseMs);
      else await writer.waitFor(step.until);
    }
    await writer.end();
  };
}

/** A streamed completion sent in writes of `bytes` bytes, which split frames and code points. */
function chopped(bytes: number, options: CompletionOptions = {}): Answer {
  return (writer) => {
    const whole = Buffer.from(wholeFrames(writer.request, options).join(''));
    const count = Math.ceil(whole.length / bytes);
    const chunks = Array.from({ length: count }, (_, index) =>
      whole.subarray(index * bytes, (index + 1) * bytes),
    );
    // A pause of 0 ms sends each chunk in a separate packet.
    return steps(chunks.flatMap((chunk): Step[] => [chunk, { pauseMs: 0 }]))(writer);
  };
}

/** A streamed completion with a comment (keep-alive) before every frame. */
function commented(comment = ': keep-alive\n\n', options: CompletionOptions = {}): Answer {
  return (writer) => steps(wholeFrames(writer.request, options).flatMap((one) => [comment, one]))(writer);
}

/** A streamed completion that waits for `event` after `afterFrames` frames. */
function held(afterFrames: number, event: Promise<unknown>, options: CompletionOptions = {}): Answer {
  return (writer) => {
    const frames = wholeFrames(writer.request, options);
    return steps([...frames.slice(0, afterFrames), { until: event }, ...frames.slice(afterFrames)])(writer);
  };
}

/** An endless stream of frames of `frameBytes` bytes, as fast as the client reads. */
function endlessStream({ frameBytes = 1024, everyMs = 0 } = {}): Answer {
  return async (writer) => {
    const one = protocolOf(writer.request).repeatable(writer.request, 'x'.repeat(frameBytes));
    writer.head(200, { 'content-type': EVENT_STREAM });
    for (;;) {
      await writer.write(one);
      // Without a pause, a client in the same process would never run.
      await writer.delay(everyMs);
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

/** An error in the format of the protocol, with OpenAI's message where it has one. */
function error(status: number, options: ErrorOptions = {}): Answer {
  const known = KNOWN_ERRORS[status] ?? {
    message: `Upstream error ${status}.`,
    type: 'server_error',
    code: null,
  };
  const { headers = {}, ...members } = options;
  return (writer) => {
    const body = protocolOf(writer.request).errorBody({ ...known, param: null, ...members });
    return reply({ status, headers, body })(writer);
  };
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

/** A 429 with the deadline in all headers that providers use for it. */
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

/** An error that contains the client's key in the body (raw, JSON, base64, percent-encoded) and in a header. */
function keyEcho(status = 401): Answer {
  return (writer) => {
    const key = writer.request.key ?? '';
    const forms = [key, JSON.stringify(key), Buffer.from(key).toString('base64'), encodeURIComponent(key)];
    return error(status, {
      message: `Incorrect API key provided: ${forms.join(' ')}`,
      headers: { 'request-id': key },
    })(writer);
  };
}

function redirect(status: 301 | 302 | 303 | 307 | 308, location: string): Answer {
  return reply({ status, headers: { location }, body: {} });
}

/** A web page. */
function html(status = 200): Answer {
  const body = '<!doctype html><html><body><script>alert(1)</script>Welcome</body></html>';
  return reply({ status, headers: { 'content-type': 'text/html; charset=utf-8' }, body });
}

/** A valid completion in gzip that the request did not allow. */
function gzipped(options: CompletionOptions = {}): Answer {
  return (writer) => {
    const isStream = wantsStream(writer.request);
    const plain = isStream
      ? wholeFrames(writer.request, options).join('')
      : JSON.stringify(protocolOf(writer.request).body(writer.request, options));
    const type = isStream ? EVENT_STREAM : 'application/json';
    return reply({
      headers: { 'content-type': type, 'content-encoding': 'gzip' },
      body: gzipSync(plain),
    })(writer);
  };
}

/** A valid completion with all `HOSTILE_HEADERS` and all `ALLOWED_HEADERS`. */
function hostileHeaders(options: CompletionOptions = {}): Answer {
  return completion({ ...options, headers: [...ALLOWED_HEADERS, ...HOSTILE_HEADERS] });
}

function models(ids: readonly string[] = ['upstream-model']): Answer {
  const data = ids.map((id) => ({ id, object: 'model', created: 1_700_000_000, owned_by: 'upstream' }));
  return reply({ body: { object: 'list', data } });
}

function toHead({ headers, contentType }: HeadOptions, usualType: string): [string, string][] {
  const lines = toLines(headers);
  const isSet = contentType === undefined && lines.some(([name]) => name.toLowerCase() === 'content-type');
  if (!isSet && contentType !== null) lines.push(['content-type', contentType ?? usualType]);
  return lines;
}

function toLines(headers: HeaderLines = {}): [string, string][] {
  const lines: readonly (readonly [string, string])[] = Array.isArray(headers)
    ? headers
    : Object.entries(headers);
  return lines.map(([name, value]) => [name, value]);
}

function toBytes(body: unknown): Buffer {
  if (body instanceof Uint8Array) return Buffer.from(body);
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
}

/** Answers of a working upstream. */
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
