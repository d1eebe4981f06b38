import type { z } from 'zod';
import { readLines, readText, type BoundedHttpClient } from '../../lib/net/bounded-http.ts';
import { parseJson } from '../../lib/json.ts';
import { clusterErrorFromResponse, malformedError, toClusterError } from './errors.ts';

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
const WATCH_LIMITS = { maxLineBytes: MAX_WATCH_BYTES, maxBytes: MAX_WATCH_BYTES, skipUnterminated: true };
/**
 * Maximum time to the response headers, also on a busy cluster: creating a pod waits for admission plug-ins.
 */
const HEADERS_TIMEOUT_MS = 30_000;
const REQUEST_TIMEOUT_MS = 45_000;

/** @param base path of the cluster, before that of each request; without a slash at its end. */
export function createClusterRequests(http: BoundedHttpClient, base: string): ClusterRequests {
  const open = ({ path, ...request }: KubernetesRequest, signal: AbortSignal) =>
    http.requestStream({ ...request, path: base + path, timeoutMs: HEADERS_TIMEOUT_MS, signal });

  const requests: ClusterRequests = {
    async send(request) {
      const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
      try {
        const { status, body } = await open(request, signal);
        return { status, body: parseJson(await readText(body, MAX_BODY_BYTES, signal)) };
      } catch (error) {
        throw toClusterError(signal.aborted ? signal.reason : error);
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
        const { status, body } = await open({ method: 'GET', path }, signal);
        if (status !== 200)
          throw clusterErrorFromResponse(status, parseJson(await readText(body, MAX_BODY_BYTES, signal)));
        for await (const line of readLines(body, WATCH_LIMITS, signal))
          yield requests.parse(shape, 200, parseJson(line));
      } catch (error) {
        if (!signal.aborted) throw toClusterError(error);
      }
    },
  };
  return requests;
}
