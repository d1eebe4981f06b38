import express, { type Express } from 'express';
import type { Context } from './context.ts';
import { GATEWAY_ERROR_FORMATS, refuseMisplacedPaths } from './gateway/routes.ts';
import { drainingError } from './http/draining-error.ts';
import { createErrorHandler } from './http/errors.ts';
import { createRequestContext } from './http/request-context.ts';
import { mountRoutes } from './http/route.ts';
import { createSecurityHeaders } from './http/security-headers.ts';
import { notFound } from './lib/errors.ts';
import { refuseTokenInUrl } from './tokens/routes.ts';

/** Paths that are served while the process drains. */
const PROBES = new Set(['/livez', '/readyz']);

/**
 * Creates the HTTP application. The order matters: request id and log, security headers, host and address
 * check, each route's own checks (see `mountRoutes`), errors last.
 */
export function createApp(context: Context): Express {
  const app = express();
  app.disable('x-powered-by').disable('etag');
  // Our checks compare paths literally, so `/V1` must not match a route.
  app.enable('case sensitive routing');
  app.set('trust proxy', context.config.trustProxy);
  app.set('query parser', 'simple');
  app.use(createRequestContext(context.log, context.metrics.observe));
  app.use(createSecurityHeaders(context.config.publicUrl));
  app.use(context.hostGuard);
  app.use(refuseTokenInUrl);
  app.use((request, _response, next) => {
    if (context.isDraining() && !PROBES.has(request.path)) throw drainingError();
    next();
  });
  mountRoutes(app, context.routes, context.guards);
  app.use(refuseMisplacedPaths);
  app.use(context.serveUnknownPath);
  app.use(() => {
    throw notFound('This address');
  });
  app.use(createErrorHandler(GATEWAY_ERROR_FORMATS));
  return app;
}
