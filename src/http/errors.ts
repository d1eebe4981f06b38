import type { NextFunction, Request, Response } from 'express';
import { AppError, isAppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { toProblem } from './problem.ts';
import { getRequestContext } from './route.ts';

/** Against causes that go round in a circle. */
const MAX_CAUSES = 10;

/** Writes an error's body for one family of paths. */
export interface ErrorFormat {
  /** The paths that speak this shape, e.g. `/v1`. */
  pathPrefix: string;
  contentType: string;
  /** Headers that stand on each of its errors. */
  headers: Record<string, string>;
  body(error: AppError, requestId: string): unknown;
}

/**
 * The one place where errors become answers. An unknown error is a 500 without detail, logged once; a
 * request that has begun to be answered can only be cut off.
 * @param formats protocols with error shapes of their own; everything else is `application/problem+json`.
 */
export function createErrorHandler(formats: readonly ErrorFormat[]) {
  return (thrown: unknown, request: Request, response: Response, _next: NextFunction): void => {
    const { requestId, log } = getRequestContext(response);
    const error = toAppError(thrown);
    logError(log, error, thrown);
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const format = formats.find(
      ({ pathPrefix: prefix }) => request.path === prefix || request.path.startsWith(`${prefix}/`),
    );
    for (const [name, value] of Object.entries({ ...format?.headers, ...error.headers }))
      response.setHeader(name, value);
    response
      .status(error.status)
      .setHeader('content-type', format?.contentType ?? 'application/problem+json');
    response.end(JSON.stringify(format?.body(error, requestId) ?? toProblem(error, requestId)));
  };
}

/** An outage elsewhere is expected and comes in crowds: a line each says enough. A fault of ours needs its stack. */
function logError(log: Log, error: AppError, thrown: unknown): void {
  if (error.code === 'internal_error') log.error({ err: thrown }, 'request failed');
  else if (error.status >= 500) log.warn(summarizeError(error), 'request failed');
  else log.debug({ code: error.code }, error.detail);
}

/** What the log says of a failure that is expected to happen: what and why, without stacks. */
export function summarizeError(error: AppError): { code: string; detail: string; causes: string[] } {
  return { code: error.code, detail: error.detail, causes: listCauses(error) };
}

/** The messages of an error's causes, the nearest first. */
function listCauses(error: Error): string[] {
  const causes: string[] = [];
  for (let cause = error.cause; cause !== undefined && causes.length < MAX_CAUSES;) {
    causes.push(causeMessage(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return causes;
}

/** Failing to connect to several addresses leaves an error without a message, but with a code. */
function causeMessage(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const { code } = cause as { code?: unknown };
  return cause.message || (typeof code === 'string' ? code : cause.name);
}

function toAppError(thrown: unknown): AppError {
  if (isAppError(thrown)) return thrown;
  // Express itself refuses a path that is not valid percent-encoding.
  if (thrown instanceof URIError) return new AppError('validation_failed', 'The address is not valid.');
  return new AppError('internal_error', 'Something went wrong here. The request id helps us to find it.', {
    cause: thrown,
  });
}
