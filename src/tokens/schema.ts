import { z } from 'zod';
import { SCOPES } from '../http/principal.ts';
import { FutureDate } from '../lib/future-date.ts';
import { refuseHiddenCharacters } from '../lib/visible-text.ts';

const MAX_LISTED = 100;

const name = z
  .string()
  .trim()
  .min(1, 'must not be empty')
  .max(120, 'must have 120 characters or fewer')
  .superRefine(refuseHiddenCharacters);

const modelPattern = z
  .string()
  .max(256, 'must have 256 characters or fewer')
  .regex(/^[^/*\s]+\/([^*\s]+\*?|\*)$/, 'must be provider/model, with * at the end at most')
  .superRefine(refuseHiddenCharacters);

const keyId = z.string().regex(/^[0-9A-Za-z_-]{1,64}$/, 'must be the id of a key');

function listOf<T extends z.ZodType>(item: T) {
  return z
    .array(item)
    .min(1, 'must not be empty; leave it out to allow all')
    .max(MAX_LISTED, `must have ${MAX_LISTED} entries or fewer`)
    .transform((items) => [...new Set(items)]);
}

export const CreateToken = z.strictObject({
  name,
  scopes: listOf(z.enum(SCOPES, `must be one of: ${SCOPES.join(', ')}`)),
  /** Missing or null: it does not expire. */
  expires_at: FutureDate.nullish(),
  /** Missing or null: any model. */
  models: listOf(modelPattern).nullish(),
  /** Missing or null: any stored key, and the system default where it pays. */
  key_ids: listOf(keyId).nullish(),
});
export type CreateToken = z.output<typeof CreateToken>;

export const TokenParams = z.object({ id: z.string() });

const dateTime = z.iso.datetime();

/** A token as its owner sees it. */
export const TokenView = z.object({
  id: z.string(),
  name: z.string(),
  /** The first characters of the token. */
  prefix: z.string(),
  scopes: z.array(z.enum(SCOPES)),
  models: z.array(z.string()).nullable(),
  key_ids: z.array(z.string()).nullable(),
  /** Not supported yet. */
  limits: z.null(),
  created_at: dateTime,
  expires_at: dateTime.nullable(),
  /** Written at most once a minute. */
  last_used_at: dateTime.nullable(),
  /** The `User-Agent` of that request. */
  last_client: z.string().nullable(),
  /** The status of its response; null when the client disconnected before it. */
  last_status: z.number().int().nullable(),
});
export type TokenView = z.output<typeof TokenView>;

/** The only response that contains a token. */
export const TokenCreated = TokenView.extend({ token: z.string() });
export type TokenCreated = z.output<typeof TokenCreated>;

export const TokenRevoked = z.object({ message: z.string() });
