import type { NextFunction, Request, Response } from 'express';
import { randomId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';

/** Allowed form of a client's request id. It is logged beside the server's id and never replaces it. */
const CLIENT_REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;

/** Called for each closed request. `route` is the declared path, so that it has few values. */
export type ObserveRequest = (observed: {
  method: string;
  route: string;
  status: number;
  durationMs: number;
}) => void;

/**
 * Creates the middleware that assigns a request id and a child log to each request and logs one line when the request
 * is closed. The line names the declared route, since users paste keys into URLs.
 */
export function createRequestContext(log: Log, observe: ObserveRequest) {
  return (request: Request, response: Response, next: NextFunction): void => {
    const id = `req_${randomId(20)}`;
    const clientId = request.get('x-request-id');
    const requestLog = log.child({
      request_id: id,
      ...(clientId !== undefined && CLIENT_REQUEST_ID.test(clientId) ? { client_request_id: clientId } : {}),
    });
    response.locals['requestId'] = id;
    response.locals['log'] = requestLog;
    response.setHeader('x-request-id', id);
    const startedAt = performance.now();
    response.once('close', () => {
      const durationMs = Math.round(performance.now() - startedAt);
      const { method } = request;
      const status = response.statusCode;
      const route = (request.route as { path: string } | undefined)?.path ?? 'unmatched';
      observe({ method, route, status, durationMs });
      const complete = response.writableFinished;
      requestLog.info(
        { event: 'request', method, route, status, complete, duration_ms: durationMs },
        'request',
      );
    });
    next();
  };
}
