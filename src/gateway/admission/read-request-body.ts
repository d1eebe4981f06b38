import type { Request } from 'express';
import type { BodyReservation } from '../../http/body-budget.ts';
import { assertJsonType } from '../../http/json-body.ts';
import { readBody } from '../../http/read-body.ts';
import { AppError } from '../../lib/errors.ts';

const MAX_BODY_BYTES = 32 * 1024 * 1024;

/**
 * Reads the body of a request to `/v1`, at most 32 MB.
 * @param signal aborts the wait for the client.
 * @throws what `assertJsonType` and `readBody` throw; AppError `validation_failed` (400) when there is no body.
 */
export async function readRequestBody(
  request: Request,
  reservation: BodyReservation,
  signal: AbortSignal,
): Promise<Buffer> {
  assertJsonType(request);
  const body = await readBody(request, { maxBytes: MAX_BODY_BYTES, reservation, signal });
  if (body.length === 0)
    throw new AppError('validation_failed', 'The request has no body. Send a JSON object.');
  return body;
}
