import { createServer, type Server } from 'node:http';
import { collectDefaultMetrics, Counter, Histogram, Registry } from 'prom-client';
import { isListenerHost, type ListenerHosts } from '../http/host-guard.ts';
import type { ObserveRequest } from '../http/request-context.ts';
import type { Readiness } from './readiness.ts';

export interface Metrics {
  /** The labels have few values: method, declared path, status; never a user or a key. */
  observe: ObserveRequest;
  /** Counts requests that are missing in the ledger. */
  countDroppedUsage(count: number): void;
  /**
   * The server for operators: `/metrics` in the Prometheus text format, `/livez`, and `/readyz` with details. An
   * unknown Host header gets a 421.
   */
  createOperatorServer(readiness: () => Promise<Readiness>, hosts: ListenerHosts): Server;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const requests = new Histogram({
    name: 'ops_center_http_request_duration_seconds',
    help: 'Time from a request to the end of its response.',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 60],
    registers: [registry],
  });
  const droppedUsage = new Counter({
    name: 'ops_center_usage_dropped_total',
    help: 'Requests that could not be stored in the ledger.',
    registers: [registry],
  });
  return {
    countDroppedUsage: (count) => {
      droppedUsage.inc(count);
    },
    observe: ({ method, route, status, durationMs }) => {
      requests.observe({ method, route, status: String(status) }, durationMs / 1000);
    },
    createOperatorServer: (readiness, hosts) =>
      createServer((request, response) => {
        const respond = async (): Promise<[status: number, type: string, body: string]> => {
          if (!isListenerHost(request, hosts)) return [421, 'text/plain', ''];
          if (request.method !== 'GET') return [405, 'text/plain', ''];
          if (request.url === '/livez') return [200, 'application/json', '{"status":"alive"}'];
          if (request.url === '/metrics') return [200, registry.contentType, await registry.metrics()];
          if (request.url !== '/readyz') return [404, 'text/plain', ''];
          const { ready, details } = await readiness();
          return [
            ready ? 200 : 503,
            'application/json',
            JSON.stringify({ status: ready ? 'ready' : 'not_ready', ...details }),
          ];
        };
        void respond().then(
          ([status, type, body]) =>
            response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body),
          () => response.writeHead(500).end(),
        );
      }),
  };
}
