import type { NextFunction, Request, Response } from 'express';
import { randomId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';

/** What a client may call its request; logged beside our own id, never used as one. */
const CLIENT_REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/;

/** Told of each request when it is over; the route is the declared path, so that it has few values. */
export type ObserveRequest = (observed: {
  method: string;
  route: string;
  status: number;
  durationMs: number;
}) => void;

/**
 * Gives each request an id of ours and a log that carries it, and logs one line when it is over, with the route
 * as declared: people paste keys into addresses too.
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
