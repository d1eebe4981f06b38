import type { NextFunction, Request, Response } from 'express';
import { AppError } from '../lib/errors.ts';

/** Ends of the paths that SDKs append to their base URL. */
const OPENAI_ENDS = /\/(chat\/completions|completions|responses|embeddings|models)$/;
const ANTHROPIC_ENDS = /\/messages(\/count_tokens)?$/;
/** Paths that have routes of their own. */
const SERVED = /^\/(v1|api)(\/|$)/;

/** True for a path of OpenAI's protocol outside `/v1`, as a client with the wrong base URL calls it. */
export function isMisplacedOpenAiPath(path: string): boolean {
  return OPENAI_ENDS.test(path) && !SERVED.test(path);
}

/** The same for Anthropic's protocol. */
export function isMisplacedAnthropicPath(path: string): boolean {
  return ANTHROPIC_ENDS.test(path) && !SERVED.test(path);
}

/**
 * Middleware that refuses the calls of clients with a wrong base URL. SDKs show nothing of an error in another shape than
 * that of their protocol. It reads neither credentials nor the body.
 * @throws AppError `not_found` (404).
 */
export function refuseMisplacedPaths(request: Request, _response: Response, next: NextFunction): void {
  const { path } = request;
  if (isMisplacedOpenAiPath(path) || isMisplacedAnthropicPath(path))
    throw new AppError('not_found', 'The base URL ends in /v1.');
  next();
}
