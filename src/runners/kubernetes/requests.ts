import type { Dispatcher } from 'undici';
import type { z } from 'zod';
import type { GuardedPool } from '../../lib/net/guarded-pool.ts';
import { parseJson } from '../../lib/json.ts';
import type { ClusterAccess } from './access.ts';
import { toClusterError, ClusterError, clusterErrorFromResponse } from './errors.ts';

interface KubernetesRequest {
  method: 'GET' | 'POST' | 'DELETE';
  /** Below the cluster's own path; names in it are checked beforehand. */
  path: string;
  body?: unknown;
}

/** Requests to one API server. No answer can be larger, slower or deeper than its bounds. */
export interface ClusterRequests {
  /** @returns status and body, whatever they are. @throws ClusterError when there is no whole answer. */
  send(request: KubernetesRequest): Promise<{ status: number; body: unknown }>;
  /** @throws ClusterError unless the status is 2xx and the body of that shape. */
  parse<Shape extends z.ZodType>(shape: Shape, status: number, body: unknown): z.output<Shape>;
  /** Both together. */
  request<Shape extends z.ZodType>(shape: Shape, request: KubernetesRequest): Promise<z.output<Shape>>;
  /** Reads an answer line by line while it comes. Ends with `signal`. @throws ClusterError */
  readLines<Shape extends z.ZodType>(
    path: string,
    shape: Shape,
    signal: AbortSignal,
  ): AsyncGenerator<z.output<Shape>>;
}

/** A pod is 10 KB, and 500 of them are the most that is asked for. */
const MAX_BODY_BYTES = 8 * 1024 * 1024;
/** News of one pod for a minute: each is 10 KB, and there are ten. */
const MAX_WATCH_BYTES = 4 * 1024 * 1024;
const REQUEST_TIMEOUT_MS = 45_000;

/** Builds the requests of one account. */
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
        const answer = await dispatch(request, AbortSignal.timeout(REQUEST_TIMEOUT_MS));
        return { status: answer.statusCode, body: parseJson(await readText(answer.body)) };
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
        const answer = await dispatch({ method: 'GET', path }, signal);
        if (answer.statusCode !== 200)
          throw clusterErrorFromResponse(answer.statusCode, parseJson(await readText(answer.body)));
        for await (const line of splitLines(answer.body)) yield requests.parse(shape, 200, parseJson(line));
      } catch (error) {
        if (!signal.aborted) throw toClusterError(error);
      }
    },
  };
  return requests;
}

function malformedError(): ClusterError {
  return new ClusterError('malformed', 'The cluster answers in a way that no Kubernetes API does.');
}

type Body = Dispatcher.ResponseData['body'];

async function readText(body: Body): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of body as AsyncIterable<Buffer>) {
    bytes += piece.length;
    // Leaving the loop destroys the body, and with it the connection.
    if (bytes > MAX_BODY_BYTES) throw malformedError();
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

async function* splitLines(body: Body): AsyncGenerator<string> {
  let pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of body as AsyncIterable<Buffer>) {
    let rest = piece;
    bytes += piece.length;
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      pieces.push(rest.subarray(0, end));
      yield Buffer.concat(pieces).toString('utf8');
      [pieces, rest] = [[], rest.subarray(end + 1)];
    }
    pieces.push(rest);
    if (bytes > MAX_WATCH_BYTES) throw malformedError();
  }
}
