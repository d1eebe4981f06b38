import { redactJson, type Redactor } from '../../lib/redact.ts';
import type { Surface } from '../surface.ts';
import type { ErrorResponse } from './response.ts';

export interface ErrorBodyOptions {
  surface: Surface;
  redact: Redactor;
}

/** The value that the client receives as JSON, and whether it contains anything that the upstream wrote. */
export interface ErrorBody {
  value: unknown;
  isUpstreamText: boolean;
}

/**
 * The body of an upstream's error. JSON keeps its members, or from a private address those of the protocol only; all
 * its strings and member names are redacted. Anything else is replaced by a sentence in the protocol's shape.
 */
export function toErrorBody(response: ErrorResponse, { surface, redact }: ErrorBodyOptions): ErrorBody {
  const { status, value, isPublic } = response;
  if (value !== undefined) {
    const shown = toShownError(value, isPublic, { surface, redact });
    if (shown !== undefined) return { value: shown, isUpstreamText: true };
  }
  // One sentence for every body from a private address: even its kind may reveal an internal service.
  const message =
    isPublic && 'otherBody' in response
      ? `The provider answered ${status} with ${response.otherBody}.`
      : `The endpoint answered ${status} without an error of the ${surface.protocolName} protocol.`;
  return { value: surface.toUpstreamError(message), isUpstreamText: isPublic };
}

/** The parsed error as it may be shown, secrets redacted; undefined when it may not be shown. */
export function toShownError(
  value: unknown,
  isPublic: boolean,
  { surface, redact }: ErrorBodyOptions,
): unknown {
  const redacted = redactJson(value, redact);
  return isPublic ? redacted : surface.findError(redacted);
}
