import express, { type Express } from 'express';
import type { Context } from './context.ts';
import {
  isMisplacedAnthropicPath,
  isMisplacedOpenAiPath,
  refuseMisplacedPaths,
} from './gateway/misplaced-paths.ts';
import { toAnthropicError } from './gateway/surfaces/anthropic-messages/errors.ts';
import { toOpenAiError } from './gateway/surfaces/openai-chat/errors.ts';
import { drainingError } from './http/draining-error.ts';
import { createErrorHandler, type ErrorFormat } from './http/errors.ts';
import { createRequestContext } from './http/request-context.ts';
import { mountRoutes } from './http/route.ts';
import { createSecurityHeaders } from './http/security-headers.ts';
import { notFound } from './lib/errors.ts';

/** Errors of a protocol have its format, which its SDKs read, and a header that names their source. */
const PROTOCOL_ERROR = {
  contentType: 'application/json',
  headers: { 'x-ops-error-source': 'ops-center' },
};
const ERROR_FORMATS: readonly ErrorFormat[] = [
  {
    ...PROTOCOL_ERROR,
    hasPath: (path) => path === '/v1' || path.startsWith('/v1/') || isMisplacedOpenAiPath(path),
    body: toOpenAiError,
  },
  { ...PROTOCOL_ERROR, hasPath: isMisplacedAnthropicPath, body: toAnthropicError },
];

/** Paths that are served while the process drains. */
const PROBES = new Set(['/livez', '/readyz']);

/**
 * Creates the HTTP application. The order matters: request id and log, security headers, host check, each route's
 * own checks (see `mountRoutes`), errors last.
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
  app.use((request, _response, next) => {
    if (context.isDraining() && !PROBES.has(request.path)) throw drainingError();
    next();
  });
  mountRoutes(app, context.routes, context.guards);
  app.use(refuseMisplacedPaths);
  app.use(() => {
    throw notFound('This address');
  });
  app.use(createErrorHandler(ERROR_FORMATS));
  return app;
}
