import type { V1Pod } from '@kubernetes/client-node';
import { z } from 'zod';
import { parseJson } from '../../lib/json.ts';
import {
  createBoundedHttpClient,
  readLines,
  readText,
  type BoundedHttpClient,
} from '../../lib/net/bounded-http.ts';
import type { Dialer } from '../../lib/net/dialer.ts';
import { effectivePort } from '../../lib/net/egress.ts';
import { createTlsConnector, type Connector } from '../../lib/net/tls-connector.ts';
import type { ClusterAccess } from './kubeconfig.ts';
import { clusterErrorFromResponse, malformedError, toClusterError } from './errors.ts';
import { PodState } from './pod-state.ts';

/** One right: a verb on a resource of the namespace. */
export interface ResourceRight {
  verb: string;
  resource: string;
  subresource?: string;
}

/**
 * Client for the part of the Kubernetes API that is used, in one namespace. Every response is bounded and
 * validated.
 */
export interface ClusterApi {
  readonly access: ClusterAccess;
  /** Opens a separate connection, for protocols above HTTP. @throws errors of the connector. */
  readonly connect: Connector;
  /**
   * @throws ClusterError. The pod may exist nevertheless, unless the kind is in `NOT_CREATED_KINDS`
   *   (job-pod.ts).
   */
  createPod(pod: V1Pod): Promise<PodState>;
  /** @returns undefined if there is no such pod. @throws ClusterError */
  findPod(name: string): Promise<PodState | undefined>;
  /** At most 500. @param labels a selector, e.g. `a=b,c=d`. @throws ClusterError */
  listPods(labels: string): Promise<PodState[]>;
  /**
   * Deletes a pod. With a grace period it is listed until the node confirms that its processes are gone.
   * Without one the cluster removes it from the list at once, even if its processes still run.
   * @returns false if there was none. @throws ClusterError
   */
  deletePod(name: string, graceSeconds: number): Promise<boolean>;
  /**
   * Yields each state of one pod, and undefined once it is gone. Ends when the server ends the watch.
   * @throws ClusterError
   */
  watchPod(name: string, since: string, signal: AbortSignal): AsyncGenerator<PodState | undefined>;
  /** Checks one right of this account with a SelfSubjectAccessReview. @throws ClusterError */
  isAllowed(right: ResourceRight): Promise<boolean>;
  close(): Promise<void>;
}

/** The server ends a watch after this time, and the client a little later. */
const WATCH_SECONDS = 60;

const PodList = z.object({ items: z.array(PodState) });
const WatchEvent = z.discriminatedUnion('type', [
  z.object({ type: z.enum(['ADDED', 'MODIFIED', 'DELETED']), object: PodState }),
  // E.g. the requested version is too old. The caller starts a new watch.
  z.object({ type: z.literal('ERROR') }),
]);
const AccessReview = z.object({ status: z.object({ allowed: z.boolean() }) });

/** Creates a client. It connects at the first request. */
export function createClusterApi(dialer: Dialer, access: ClusterAccess): ClusterApi {
  const { server, ca, client, token } = access;
  const connect = createTlsConnector(dialer, {
    host: server.hostname,
    port: effectivePort(server),
    tls: { ca, client },
  });
  const http = createBoundedHttpClient(connect, {
    host: server.host,
    accept: 'application/json',
    'user-agent': 'ops-center',
    ...(token === null ? {} : { authorization: `Bearer ${token}` }),
  });
  const requests = createClusterRequests(http, server.pathname.replace(/\/$/, ''));
  return { access, connect, ...podCalls(requests, access.namespace), close: http.close };
}

function podCalls(
  requests: ClusterRequests,
  namespace: string,
): Omit<ClusterApi, 'access' | 'connect' | 'close'> {
  const pods = `/api/v1/namespaces/${namespace}/pods`;
  return {
    createPod: (pod) => requests.request(PodState, { method: 'POST', path: pods, body: pod }),
    async findPod(name) {
      const { status, body } = await requests.send({
        method: 'GET',
        path: `${pods}/${encodeURIComponent(name)}`,
      });
      return status === 404 ? undefined : requests.parse(PodState, status, body);
    },
    async listPods(labels) {
      const path = `${pods}?labelSelector=${encodeURIComponent(labels)}&limit=500`;
      const { items } = await requests.request(PodList, { method: 'GET', path });
      return items;
    },
    async deletePod(name, graceSeconds) {
      const body = { apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds: graceSeconds };
      const response = await requests.send({
        method: 'DELETE',
        path: `${pods}/${encodeURIComponent(name)}`,
        body,
      });
      if (response.status !== 404 && response.status >= 300)
        throw clusterErrorFromResponse(response.status, response.body);
      return response.status !== 404;
    },
    async *watchPod(name, since, signal) {
      const query = new URLSearchParams({
        watch: 'true',
        fieldSelector: `metadata.name=${name}`,
        resourceVersion: since,
        timeoutSeconds: String(WATCH_SECONDS),
      });
      const timedSignal = AbortSignal.any([signal, AbortSignal.timeout((WATCH_SECONDS + 10) * 1000)]);
      for await (const event of requests.readLines(`${pods}?${query.toString()}`, WatchEvent, timedSignal)) {
        if (event.type === 'ERROR') return;
        yield event.type === 'DELETED' ? undefined : event.object;
      }
    },
    async isAllowed({ verb, resource, subresource }) {
      const { status } = await requests.request(AccessReview, {
        method: 'POST',
        path: '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
        body: {
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SelfSubjectAccessReview',
          spec: { resourceAttributes: { namespace, verb, resource, subresource } },
        },
      });
      return status.allowed;
    },
  };
}

interface KubernetesRequest {
  method: 'GET' | 'POST' | 'DELETE';
  /** Relative to the cluster's own path. The caller validates names in it. */
  path: string;
  body?: unknown;
}

/** Requests to one API server. Every response is bounded in size, time and depth. */
interface ClusterRequests {
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
function createClusterRequests(http: BoundedHttpClient, base: string): ClusterRequests {
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
