import type { V1Pod } from '@kubernetes/client-node';
import { z } from 'zod';
import type { Dialer } from '../../lib/net/dialer.ts';
import { effectivePort } from '../../lib/net/egress.ts';
import { createTlsConnector, type Connector } from '../../lib/net/guarded-agent.ts';
import { createGuardedPool } from '../../lib/net/guarded-pool.ts';
import type { ClusterAccess } from './access.ts';
import { clusterErrorFromResponse } from './errors.ts';
import { createClusterRequests, type ClusterRequests } from './requests.ts';
import { PodState } from './pod-state.ts';

/** One right: a verb on a resource of the namespace. */
export interface ResourceRight {
  verb: string;
  resource: string;
  subresource?: string;
}

/** The part of the Kubernetes API that is used, in one namespace, with every answer bounded and checked. */
export interface ClusterApi {
  readonly access: ClusterAccess;
  /** Opens a connection of its own, for protocols above HTTP. @throws what the connector throws. */
  readonly connect: Connector;
  /** @throws ClusterError when the pod was not made, or may not have been: then its kind is not `refused`. */
  createPod(pod: V1Pod): Promise<PodState>;
  /** @returns undefined when there is no such pod. @throws ClusterError */
  findPod(name: string): Promise<PodState | undefined>;
  /** At most 500. @param labels a selector, e.g. `a=b,c=d`. @throws ClusterError */
  listPods(labels: string): Promise<PodState[]>;
  /**
   * Asks for a pod to be ended. With grace, it is listed until the node has said that its processes are gone;
   * without, the cluster forgets it at once, whatever they do.
   * @returns false when there was none. @throws ClusterError
   */
  deletePod(name: string, graceSeconds: number): Promise<boolean>;
  /** States of one pod as they come, undefined once it is gone; ends when the server ends it. @throws ClusterError */
  watchPod(name: string, since: string, signal: AbortSignal): AsyncGenerator<PodState | undefined>;
  /** Asks the cluster itself what this account may do. @throws ClusterError */
  isAllowed(right: ResourceRight): Promise<boolean>;
  close(): Promise<void>;
}

/** An answer begins within this, also when the cluster is busy: creation waits for its admission plug-ins. */
const HEADERS_TIMEOUT_MS = 30_000;
/** The server ends a watch by then, and the reader a little later. */
const WATCH_SECONDS = 60;

const PodList = z.object({ items: z.array(PodState) });
const WatchEvent = z.discriminatedUnion('type', [
  z.object({ type: z.enum(['ADDED', 'MODIFIED', 'DELETED']), object: PodState }),
  // The version asked for is too old, for example; whoever watches asks again.
  z.object({ type: z.literal('ERROR') }),
]);
const AccessReview = z.object({ status: z.object({ allowed: z.boolean() }) });

/** Opens the way to a cluster; nothing is connected before the first request. */
export function createClusterApi(dialer: Dialer, access: ClusterAccess): ClusterApi {
  const { server, ca, client } = access;
  const connect = createTlsConnector(dialer, {
    host: server.hostname,
    port: effectivePort(server),
    tls: { ca, client },
  });
  const pool = createGuardedPool(server.origin, connect, HEADERS_TIMEOUT_MS);
  const requests = createClusterRequests(pool, access);
  return { access, connect, ...podCalls(requests, access.namespace), close: () => pool.close() };
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
      const answer = await requests.send({
        method: 'DELETE',
        path: `${pods}/${encodeURIComponent(name)}`,
        body,
      });
      if (answer.status !== 404 && answer.status >= 300)
        throw clusterErrorFromResponse(answer.status, answer.body);
      return answer.status !== 404;
    },
    async *watchPod(name, since, signal) {
      const query = new URLSearchParams({
        watch: 'true',
        fieldSelector: `metadata.name=${name}`,
        resourceVersion: since,
        timeoutSeconds: String(WATCH_SECONDS),
      });
      const bound = AbortSignal.any([signal, AbortSignal.timeout((WATCH_SECONDS + 10) * 1000)]);
      for await (const event of requests.readLines(`${pods}?${query.toString()}`, WatchEvent, bound)) {
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
