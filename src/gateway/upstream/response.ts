import type { Readable } from 'node:stream';
import type { UpstreamResponse } from '../../lib/net/dialer.ts';
import { parseJson } from '../../lib/json.ts';
import { hasErrorMember, findProtocolError, isChatResponse } from '../surfaces/openai-chat/response-shape.ts';
import { discardBody, upstreamMalformed, readBoundedBody } from '../../lib/net/upstream-body.ts';

/** Bytes at most of an answer that is not streamed. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;
/** Bytes at most of an error's body. */
const MAX_ERROR_BYTES = 1024 * 1024;
/** Answers that steer what comes next, however their body is written: a refused key, a limit. */
const ANY_BODY_STATUSES = new Set([401, 429]);

interface ResponseHead {
  status: number;
  headers: UpstreamResponse['headers'];
}

/** An upstream's answer, judged by its head. */
export type ClassifiedResponse =
  | (ResponseHead & { kind: 'stream'; body: Readable; isPublic: boolean })
  /** `carriesError`: some report a failure with status 200; it is shown as any other error is. */
  | (ResponseHead & { kind: 'json'; body: Buffer; hasError: boolean })
  /** An empty body: there was none, or it may not be shown. */
  | (ResponseHead & { kind: 'error'; body: Buffer });

/**
 * Judges an upstream's answer, and reads it whole unless it is a stream: a reset in the middle of a JSON
 * answer can then still become an error in the protocol's shape.
 * @throws AppError `upstream_malformed` for anything but JSON or an event stream (HTML with 200, redirects,
 *   compressed bodies, endless bodies), `upstream_unreachable` and `upstream_timeout` from reading.
 */
export async function classifyResponse(response: UpstreamResponse): Promise<ClassifiedResponse> {
  try {
    return await classify(response);
  } catch (error) {
    discardBody(response.body);
    throw error;
  }
}

async function classify(response: UpstreamResponse): Promise<ClassifiedResponse> {
  const { status, headers } = response;
  const type = mediaType(headers['content-type']);
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    throw upstreamMalformed('The provider compressed its answer although it was asked not to.');
  }
  if (status >= 400) return classifyError(response, type);
  if (status !== 200)
    throw upstreamMalformed(`The provider answered ${status}, which is no answer to a chat request.`);
  if (type === 'text/event-stream') {
    return { kind: 'stream', status, headers, body: response.body, isPublic: response.fromPublicAddress };
  }
  if (type !== 'application/json')
    throw upstreamMalformed('The provider answered with something that is not JSON.');
  const body = await readBoundedBody(response.body, MAX_JSON_BYTES);
  const value = parseJson(body.toString('utf8'));
  if (value === undefined) throw upstreamMalformed('The provider answered with JSON that cannot be read.');
  if (!response.fromPublicAddress && !isChatResponse(value)) throw protocolMismatch();
  return { kind: 'json', status, headers, body, hasError: hasErrorMember(value) };
}

async function classifyError(response: UpstreamResponse, type: string): Promise<ClassifiedResponse> {
  const { status, headers } = response;
  const body = await readBoundedBody(response.body, MAX_ERROR_BYTES);
  const value = /^application\/(problem\+)?json$/.test(type) ? parseJson(body.toString('utf8')) : undefined;
  if (body.length > 0 && value === undefined && !ANY_BODY_STATUSES.has(status)) {
    throw upstreamMalformed(`The provider answered ${status} with something that is not JSON.`);
  }
  if (value === undefined) return { kind: 'error', status, headers, body: Buffer.alloc(0) };
  if (response.fromPublicAddress) return { kind: 'error', status, headers, body };
  const error = findProtocolError(value);
  return {
    kind: 'error',
    status,
    headers,
    body: Buffer.from(error === undefined ? '' : JSON.stringify(error)),
  };
}

/** The one wording for what a private address says that is not the protocol: it could be anyone's. */
export function protocolMismatch() {
  return upstreamMalformed('The endpoint does not speak the chat completions protocol.');
}

function mediaType(header: string | string[] | undefined): string {
  const value = Array.isArray(header) ? header[0] : header;
  return (value ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
}
