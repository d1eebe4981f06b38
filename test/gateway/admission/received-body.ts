import type { JsonBody } from '../../../src/http/json-body.ts';
import { measureJson } from '../../../src/lib/json.ts';

/** A body as `readJsonBody` returns it. */
export function receivedBody(text: string | Buffer): JsonBody {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  return { bytes, memberCount: measureJson(bytes) ?? NaN };
}
