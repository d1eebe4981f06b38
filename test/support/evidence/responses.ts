import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Evidence } from '../evidence.ts';

/** A response is the app's if it has a request id in the app's format. */
const OUR_REQUEST_ID = /^req_[0-9A-Za-z]{20}$/;
/** Maximum recorded size of a response; finite responses are far smaller. */
const MAX_BYTES = 8_388_608;
const REQUEST_START = 'http.server.request.start';
/** One process runs many test files, one after the other. Each new recorder stops the previous one. */
const takeoverChannel = channel('ops-center.test-evidence');

/**
 * Records all responses of the app that any HTTP server of this process sends, and registers the credentials of the
 * requests as secrets. Omits three values that are secrets by design: `Set-Cookie`, the `id_token_hint` in the
 * redirect to Keycloak's sign-out, and a new personal token in the response that creates it.
 */
export function recordResponses(evidence: Evidence): void {
  const onRequest = (message: unknown) => {
    const { request, response } = message as { request: IncomingMessage; response: ServerResponse };
    watch(evidence, request, response);
  };
  const stopRecording = () => {
    unsubscribe(REQUEST_START, onRequest);
    takeoverChannel.unsubscribe(stopRecording);
  };
  takeoverChannel.publish({});
  takeoverChannel.subscribe(stopRecording);
  subscribe(REQUEST_START, onRequest);
}

function watch(evidence: Evidence, request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  let size = 0;
  for (const name of ['write', 'end'] as const) {
    const original = response[name].bind(response) as (...all: unknown[]) => unknown;
    response[name] = ((...all: unknown[]) => {
      const bytes = bytesOf(all[0], all[1]);
      if (bytes !== undefined && size < MAX_BYTES) chunks.push(bytes);
      size += bytes?.length ?? 0;
      return original(...all);
    }) as never;
  }
  response.once('close', () => {
    if (!isOurs(request, response)) return;
    registerCredentials(evidence, request);
    const isNewToken = request.method === 'POST' && request.url === '/api/v1/tokens';
    const body = isNewToken ? [withoutToken(Buffer.concat(chunks))] : chunks;
    evidence.recordResponse(
      Buffer.concat([Buffer.from(headOf(request, response)), ...body, Buffer.from('\n\n')]),
    );
  });
}

function isOurs(request: IncomingMessage, response: ServerResponse): boolean {
  // The metrics listener sends no ids; no double serves this path.
  return OUR_REQUEST_ID.test(String(response.getHeader('x-request-id'))) || request.url === '/metrics';
}

/** Copies the chunk, because its writer may reuse it. */
function bytesOf(chunk: unknown, encoding: unknown): Buffer | undefined {
  if (typeof chunk === 'string')
    return Buffer.from(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8');
  return ArrayBuffer.isView(chunk)
    ? Buffer.from(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength))
    : undefined;
}

function headOf(request: IncomingMessage, response: ServerResponse): string {
  // A test can put a personal token into a path, which is not part of the response.
  const path = ((request.url ?? '').split('?')[0] ?? '').replace(/oc_[0-9A-Za-z]{38}/, '(token)');
  const headers = Object.entries(response.getHeaders())
    .filter(([name]) => name !== 'set-cookie')
    .map(([name, value]) => `${name}: ${name === 'location' ? withoutHint(String(value)) : String(value)}`);
  const lines = [
    `${request.method ?? ''} ${path}`,
    `${response.statusCode} ${response.statusMessage}`,
    ...headers,
  ];
  return `${lines.join('\n')}\n\n`;
}

/** Only the member `token`: it may be nowhere else in the response. */
function withoutToken(body: Buffer): Buffer {
  return Buffer.from(body.toString().replace(/("token":")oc_[0-9A-Za-z]{38}"/, '$1(omitted)"'));
}

function withoutHint(location: string): string {
  return location.replace(/([?&]id_token_hint=)[^&]*/, '$1(omitted)');
}

function registerCredentials(evidence: Evidence, { url = '', headers }: IncomingMessage): void {
  for (const [, value = ''] of (headers.cookie ?? '').matchAll(/(?:^|;\s*)session=([^;]*)/g)) {
    const cookie = decoded(value);
    evidence.registerSecret('session cookie', cookie);
    // `s:<id>.<signature>`
    evidence.registerSecret('session id', /^s:([^.]*)\./.exec(cookie)?.[1] ?? '');
  }
  const bearer = headers.authorization?.replace(/^\w+ +/, '');
  for (const value of [bearer, headers['x-api-key']].flat())
    if (value !== undefined) evidence.registerSecret('credential of a request', value);
  const code = /^\/auth\/callback\?(?:.*&)?code=([^&]*)/.exec(url)?.[1];
  if (code !== undefined) evidence.registerSecret('authorization code', decoded(code));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
