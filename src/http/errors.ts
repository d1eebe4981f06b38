import { STATUS_CODES, type IncomingHttpHeaders } from 'node:http';
import type { NextFunction, Request, Response } from 'express';
import { AppError, isAppError, type FieldError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { getRequestContext } from './route.ts';

/** Stops at circular causes. */
const MAX_CAUSES = 10;

/** In one response. A body can have many more invalid members. */
const MAX_FIELD_ERRORS = 100;
/** Paths and some messages repeat names of the request, which can be long. */
const MAX_FIELD_ERROR_LENGTH = 300;

/** The format of errors of some paths. */
export interface ErrorFormat {
  /** @param headers of the request: protocols can share a path. */
  hasPath(path: string, headers: IncomingHttpHeaders): boolean;
  contentType: string;
  /** Headers of every error in this format. */
  headers: Record<string, string>;
  body(error: AppError, requestId: string): unknown;
}

/**
 * Converts every error to a response. An unknown error becomes a 500 without detail and is logged once. When the
 * response has already begun, and the caller has not ended it, the connection is closed.
 * @param formats the first that has the path counts; all other paths get `application/problem+json`.
 */
export function createErrorHandler(formats: readonly ErrorFormat[]) {
  return (thrown: unknown, request: Request, response: Response, _next: NextFunction): void => {
    const { requestId, log } = getRequestContext(response);
    const error = toAppError(thrown);
    logError(log, error, thrown);
    if (response.headersSent) {
      // A stream that was ended with an error event is still sent to its end.
      if (!response.writableEnded) response.destroy();
      return;
    }
    const format = formats.find((one) => one.hasPath(request.path, request.headers));
    for (const [name, value] of Object.entries({ ...format?.headers, ...error.headers }))
      response.setHeader(name, value);
    response
      .status(error.status)
      .setHeader('content-type', format?.contentType ?? 'application/problem+json');
    response.end(JSON.stringify(format?.body(error, requestId) ?? toProblem(error, requestId)));
  };
}

/** Converts an error to problem details (RFC 9457) with `code`, `request_id` and the extra members. */
function toProblem(error: AppError, requestId: string): Record<string, unknown> {
  return {
    type: 'about:blank',
    title: STATUS_CODES[error.status] ?? 'Error',
    status: error.status,
    detail: error.detail,
    code: error.code,
    request_id: requestId,
    ...(error.errors === undefined ? {} : { errors: limitFieldErrors(error.errors) }),
    ...error.extra,
  };
}

function limitFieldErrors(errors: readonly FieldError[]): FieldError[] {
  const shorten = (text: string) =>
    text.length <= MAX_FIELD_ERROR_LENGTH ? text : `${text.slice(0, MAX_FIELD_ERROR_LENGTH - 1)}…`;
  return errors
    .slice(0, MAX_FIELD_ERRORS)
    .map(({ path, message }) => ({ path: shorten(path), message: shorten(message) }));
}

/**
 * Outages of dependencies are expected and frequent, so they get one line. Internal errors get a stack trace. The detail of
 * a refusal is for its user: it can name labels, servers and addresses.
 */
function logError(log: Log, error: AppError, thrown: unknown): void {
  if (error.code === 'internal_error') log.error({ err: thrown }, 'request failed');
  else if (error.status >= 500) log.warn(summarizeError(error), 'request failed');
  else log.debug({ code: error.code }, 'request refused');
}

/** Log fields for an expected failure: code, detail and causes, without stack traces. */
export function summarizeError(error: AppError): { code: string; detail: string; causes: string[] } {
  return { code: error.code, detail: error.detail, causes: listCauses(error) };
}

/** The messages of an error's causes, the direct cause first. */
function listCauses(error: Error): string[] {
  const causes: string[] = [];
  for (let cause = error.cause; cause !== undefined && causes.length < MAX_CAUSES;) {
    causes.push(causeMessage(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return causes;
}

/** The AggregateError of a failed connection to several addresses has a code but no message. */
function causeMessage(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const { code } = cause as { code?: unknown };
  return cause.message || (typeof code === 'string' ? code : cause.name);
}

/** An unknown error becomes `internal_error`, without its detail. */
export function toAppError(thrown: unknown): AppError {
  if (isAppError(thrown)) return thrown;
  // Express throws URIError for a path with invalid percent-encoding.
  if (thrown instanceof URIError)
    return new AppError('validation_failed', 'The path is not valid percent-encoding.');
  return new AppError(
    'internal_error',
    'Something went wrong on this server. Report the request id to the operator.',
    {
      cause: thrown,
    },
  );
}
