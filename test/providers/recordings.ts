import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** What a provider's answers can say of a key. */
export const OUTCOMES = ['valid', 'invalid', 'forbidden', 'no_credit', 'rate_limited', 'error'] as const;

const Recording = z.strictObject({
  outcome: z.enum(OUTCOMES),
  status: z.int(),
  /** What sets it apart from others of its status, where no code does; for docs/providers.md. */
  mark: z.string().optional(),
  /** JSON unless said otherwise. */
  contentType: z.string().optional(),
  /** Text for what is no JSON. */
  body: z.json(),
  /** Where the answer was found. */
  source: z.string().min(5),
  /** How near it is to what the source shows. */
  form: z.string().min(5),
});

const Recordings = z.strictObject({
  /** What a made-up key of the provider starts with. */
  keyPrefix: z.string(),
  /** The request that a test is; `{key}` stands for the key. */
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

/** The recorded answers of a provider. */
export function readRecordings(id: string): Recordings {
  const file = new URL(`recorded/${id}.json`, import.meta.url);
  return Recordings.parse(JSON.parse(readFileSync(file, 'utf8')));
}
