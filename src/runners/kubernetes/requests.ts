import type { Dispatcher } from 'undici';
import type { z } from 'zod';
import type { GuardedPool } from '../../lib/net/guarded-pool.ts';
import { parseJson } from '../../lib/json.ts';
import type { ClusterAccess } from './access.ts';
import { toClusterError, ClusterError, clusterErrorFromResponse } from './errors.ts';

interface KubernetesRequest {
  method: 'GET' | 'POST' | 'DELETE';
  /** Relative to the cluster's own path. The caller validates names in it. */
  path: string;
  body?: unknown;
}

/** Requests to one API server. Every response is bounded in size, time and depth. */
export interface ClusterRequests {
  /** @returns any status and body. @throws ClusterError if there is no complete response. */
  send(request: KubernetesRequest): Promise<{ status: number; body: unknown }>;
  /** @throws ClusterError unless the status is 2xx and the body of that shape. */
  parse<Shape extends z.ZodType>(shape: Shape, status: number, body: unknown): z.output<Shape>;
  /** Sends a request and parses the response. @throws ClusterError */
  request<Shape extends z.ZodType>(shape: Shape, request: KubernetesRequest): Promise<z.output<Shape>>;
  /** Yields the lines of a response as they arrive. Ends with `signal`. @throws ClusterError */
  readLines<Shape extends z.ZodType>(
    path: string,
    shape: Shape,
    signal: AbortSignal,
  ): AsyncGenerator<z.output<Shape>>;
}

/** A pod is about 10 KB, and at most 500 are requested. */
const MAX_BODY_BYTES = 8 * 1024 * 1024;
/** Events of one pod in a minute: about ten of 10 KB each. */
const MAX_WATCH_BYTES = 4 * 1024 * 1024;
const REQUEST_TIMEOUT_MS = 45_000;

export function createClusterRequests({ pool }: GuardedPool, access: ClusterAccess): ClusterRequests {
  const base = access.server.pathname.replace(/\/$/, '');
  const headers = {
    accept: 'application/json',
    'user-agent': 'ops-center',
    ...(access.token === null ? {} : { authorization: `Bearer ${access.token}` }),
  };

  function dispatch({ method, path, body }: KubernetesRequest, signal: AbortSignal) {
    const content = body === undefined ? {} : { 'content-type': 'application/json' };
    const text = body === undefined ? null : JSON.stringify(body);
    return pool.request({
      method,
      path: base + path,
      headers: { ...headers, ...content },
      body: text,
      signal,
    });
  }

  const requests: ClusterRequests = {
    async send(request) {
      try {
        const response = await dispatch(request, AbortSignal.timeout(REQUEST_TIMEOUT_MS));
        return { status: response.statusCode, body: parseJson(await readText(response.body)) };
      } catch (error) {
        throw toClusterError(error);
      }
    },
    parse(shape, status, body) {
      if (status < 200 || status >= 300) throw clusterErrorFromResponse(status, body);
      const result = shape.safeParse(body);
      if (!result.success) throw malformedError();
      return result.data;
    },
    async request(shape, request) {
      const { status, body } = await requests.send(request);
      return requests.parse(shape, status, body);
    },
    async *readLines(path, shape, signal) {
      try {
        const response = await dispatch({ method: 'GET', path }, signal);
        if (response.statusCode !== 200)
          throw clusterErrorFromResponse(response.statusCode, parseJson(await readText(response.body)));
        for await (const line of splitLines(response.body)) yield requests.parse(shape, 200, parseJson(line));
      } catch (error) {
        if (!signal.aborted) throw toClusterError(error);
      }
    },
  };
  return requests;
}

function malformedError(): ClusterError {
  return new ClusterError('malformed', 'The response is not that of a Kubernetes API: check the address.');
}

type Body = Dispatcher.ResponseData['body'];

async function readText(body: Body): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    // Leaving the loop destroys the body, and with it the connection.
    if (bytes > MAX_BODY_BYTES) throw malformedError();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function* splitLines(body: Body): AsyncGenerator<string> {
  let chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    let rest = chunk;
    bytes += chunk.length;
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      chunks.push(rest.subarray(0, end));
      yield Buffer.concat(chunks).toString('utf8');
      [chunks, rest] = [[], rest.subarray(end + 1)];
    }
    chunks.push(rest);
    if (bytes > MAX_WATCH_BYTES) throw malformedError();
  }
}
