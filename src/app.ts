import express, { type Express } from 'express';
import type { Context } from './context.ts';
import { toOpenAiError } from './gateway/surfaces/openai-chat/errors.ts';
import { drainingError } from './http/draining-error.ts';
import { createErrorHandler, type ErrorFormat } from './http/errors.ts';
import { createRequestContext } from './http/request-context.ts';
import { mountRoutes } from './http/route.ts';
import { securityHeaders } from './http/security-headers.ts';
import { notFound } from './lib/errors.ts';

/** Errors under `/v1` speak the protocol that the SDKs read, and say whose they are. */
const OPENAI_ERRORS: ErrorFormat = {
  pathPrefix: '/v1',
  contentType: 'application/json',
  headers: { 'x-ops-error-source': 'ops-center' },
  body: toOpenAiError,
};

/** Paths that still answer while the process drains. */
const PROBES = new Set(['/livez', '/readyz']);

/**
 * Builds the HTTP application. The order is the policy: id and log, headers, host, then each route's own
 * checks (see `mountRoutes`), errors last.
 */
export function createApp(context: Context): Express {
  const app = express();
  app.disable('x-powered-by').disable('etag');
  // Our own checks compare paths as they are written; `/V1` must not be served past them.
  app.enable('case sensitive routing');
  app.set('trust proxy', context.config.trustProxy);
  app.set('query parser', 'simple');
  app.use(createRequestContext(context.log, context.metrics.observe));
  app.use(securityHeaders);
  app.use(context.hostCheck);
  app.use((request, _response, next) => {
    if (context.isDraining() && !PROBES.has(request.path)) throw drainingError();
    next();
  });
  mountRoutes(app, context.routes, context.gate);
  app.use(() => {
    throw notFound('This address');
  });
  app.use(createErrorHandler([OPENAI_ERRORS]));
  return app;
}
