import type { NextFunction, Request, Response } from 'express';
import { AppError } from '../lib/errors.ts';
import { ANTHROPIC_CALL_PATHS, OPENAI_CALL_PATHS } from '../providers/address.ts';

/** Anthropic's protocol under `/v1`, and with the base URL of other SDKs. */
const ANTHROPIC_PATH = /^\/v1(\/v1)?\/(messages|complete)(\/|$)/;
/** Its SDKs append `/v1/messages` to their base URL, those of OpenAI only what comes after `/v1`. */
const TWICE_V1 = '/v1/v1/';
/** Paths that have routes of their own. */
const SERVED = /^\/(v1|api)(\/|$)/;

/** True for a path of OpenAI's protocol outside `/v1`, as a client with the wrong base URL calls it. */
export function isMisplacedOpenAiPath(path: string): boolean {
  return OPENAI_CALL_PATHS.some((end) => path.endsWith(end)) && !SERVED.test(path);
}

/** True for a path of Anthropic's protocol, under `/v1` or as a client with the wrong base URL calls it. */
export function isAnthropicPath(path: string): boolean {
  return ANTHROPIC_PATH.test(path) || isMisplacedAnthropicPath(path);
}

function isMisplacedAnthropicPath(path: string): boolean {
  return (
    ANTHROPIC_CALL_PATHS.some((end) => path.endsWith(end)) &&
    (!SERVED.test(path) || path.startsWith(TWICE_V1))
  );
}

const ADVICE = 'The base URL ends in /v1.';
/** Advice for all SDKs. */
export const BASE_URL_ADVICE = `${ADVICE} For Anthropic's SDKs it has no /v1, since they append /v1/messages.`;

/**
 * Middleware that refuses the calls of clients with a wrong base URL. SDKs show nothing of an error in another shape than
 * that of their protocol. It reads neither credentials nor the body.
 * @throws AppError `not_found` (404).
 */
export function refuseMisplacedPaths(request: Request, _response: Response, next: NextFunction): void {
  const { path } = request;
  if (isMisplacedAnthropicPath(path)) throw new AppError('not_found', BASE_URL_ADVICE);
  if (isMisplacedOpenAiPath(path)) throw new AppError('not_found', ADVICE);
  next();
}
