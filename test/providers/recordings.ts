import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { answer, type Answer } from '../support/upstream.ts';

/** The outcomes that a provider's response can have. */
export const OUTCOMES = ['valid', 'invalid', 'forbidden', 'no_credit', 'rate_limited', 'error'] as const;

const Recording = z.strictObject({
  outcome: z.enum(OUTCOMES),
  status: z.int(),
  /** Distinguishes it from others with the same status where no code does; for docs/providers.md. */
  mark: z.string().optional(),
  /** JSON by default. */
  contentType: z.string().optional(),
  /** A string when the content type is not JSON. */
  body: z.json(),
  /** Where the response was published. */
  source: z.string().min(5),
  /** How closely it matches the source. */
  form: z.string().min(5),
});

const Recordings = z.strictObject({
  /** The prefix of an invented key of the provider. */
  keyPrefix: z.string(),
  /** The request that a test sends; `{key}` is replaced by the key. */
  request: z.strictObject({
    method: z.enum(['GET', 'POST']),
    path: z.string(),
    headers: z.record(z.string(), z.string()),
    body: z.json().optional(),
  }),
  answers: z.array(Recording),
});
export type Recording = z.output<typeof Recording>;
export type Recordings = z.output<typeof Recordings>;

/** The recorded responses of a provider. */
export function readRecordings(id: string): Recordings {
  const file = new URL(`recorded/${id}.json`, import.meta.url);
  return Recordings.parse(JSON.parse(readFileSync(file, 'utf8')));
}

/** The recorded response, for the upstream double. */
export function toAnswer({ status, body, contentType }: Recording): Answer {
  return answer.reply({ status, body, ...(contentType && { headers: { 'content-type': contentType } }) });
}
