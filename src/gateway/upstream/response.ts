import type { Readable } from 'node:stream';
import type { UpstreamResponse } from '../../lib/net/dialer.ts';
import { parseJson } from '../../lib/json.ts';
import type { Surface } from '../surface.ts';
import { discardBody, upstreamMalformed, readBoundedBody } from '../../lib/net/upstream-body.ts';

const MAX_JSON_BYTES = 32 * 1024 * 1024;
const MAX_ERROR_BYTES = 1024 * 1024;
/** Statuses that are accepted with any body: a refused key, a rate limit. */
const ANY_BODY_STATUSES = new Set([401, 429]);

interface ResponseHead {
  status: number;
  headers: UpstreamResponse['headers'];
}

/** An upstream's response, classified by its status and headers. */
export type ClassifiedResponse =
  | (ResponseHead & { kind: 'stream'; body: Readable; isPublic: boolean })
  /** `hasError`: some providers report a failure with status 200; secrets are redacted as in any other error. */
  | (ResponseHead & { kind: 'json'; body: Buffer; hasError: boolean })
  /** The body is empty when there was none or when it may not be shown. */
  | (ResponseHead & { kind: 'error'; body: Buffer });

/**
 * Classifies an upstream's response and reads its body unless it is a stream. A connection reset in the middle of a
 * JSON body can then still become an error in the protocol's shape.
 * @throws AppError `upstream_malformed` for anything but JSON or an event stream (HTML with 200, redirects,
 *   compressed bodies, endless bodies), `upstream_unreachable` and `upstream_timeout` from reading.
 */
export async function classifyResponse(
  response: UpstreamResponse,
  surface: Surface,
): Promise<ClassifiedResponse> {
  try {
    return await classify(response, surface);
  } catch (error) {
    discardBody(response.body);
    throw error;
  }
}

async function classify(response: UpstreamResponse, surface: Surface): Promise<ClassifiedResponse> {
  const { status, headers } = response;
  const type = mediaType(headers['content-type']);
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    throw upstreamMalformed(
      'The provider compressed its response although the request asked for no encoding.',
    );
  }
  if (status >= 400) return classifyError(response, type, surface);
  if (status !== 200)
    throw upstreamMalformed(
      `The provider responded with status ${status}, which is not valid for a ${surface.name} request.`,
    );
  if (type === 'text/event-stream') {
    return { kind: 'stream', status, headers, body: response.body, isPublic: response.isFromPublicAddress };
  }
  if (type !== 'application/json') throw upstreamMalformed('The response of the provider is not JSON.');
  const body = await readBoundedBody(response.body, MAX_JSON_BYTES);
  const value = parseJson(body.toString('utf8'));
  if (value === undefined)
    throw upstreamMalformed('The JSON of the provider is invalid or exceeds the size limits.');
  if (!response.isFromPublicAddress && !surface.isResponse(value)) throw protocolMismatch(surface);
  return { kind: 'json', status, headers, body, hasError: surface.hasError(value) };
}

async function classifyError(
  response: UpstreamResponse,
  type: string,
  surface: Surface,
): Promise<ClassifiedResponse> {
  const { status, headers } = response;
  const body = await readBoundedBody(response.body, MAX_ERROR_BYTES);
  const value = /^application\/(problem\+)?json$/.test(type) ? parseJson(body.toString('utf8')) : undefined;
  if (body.length > 0 && value === undefined && !ANY_BODY_STATUSES.has(status)) {
    throw upstreamMalformed(`The provider responded with status ${status} and a body that is not JSON.`);
  }
  if (value === undefined) return { kind: 'error', status, headers, body: Buffer.alloc(0) };
  if (response.isFromPublicAddress) return { kind: 'error', status, headers, body };
  const error = surface.findError(value);
  return {
    kind: 'error',
    status,
    headers,
    body: Buffer.from(error === undefined ? '' : JSON.stringify(error)),
  };
}

/** The only error for an unexpected response from a private address: its content may belong to any internal service. */
export function protocolMismatch({ protocolName }: Surface) {
  return upstreamMalformed(`The endpoint does not implement the ${protocolName} protocol.`);
}

function mediaType(header: string | string[] | undefined): string {
  const value = Array.isArray(header) ? header[0] : header;
  return (value ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
}
