import { z } from 'zod';
import { FutureDate } from '../lib/future-date.ts';
import { refuseHiddenCharacters } from '../lib/visible-text.ts';

/** What tests and use have shown about a key. */
export const KEY_TEST_STATUSES = [
  'untested',
  'valid',
  'invalid',
  'forbidden',
  'no_credit',
  'rate_limited',
  'unreachable',
  'timeout',
  'error',
  'unverified',
  'undecryptable',
] as const;
export type KeyTestStatus = (typeof KEY_TEST_STATUSES)[number];

const dateTime = z.iso.datetime();

export const ProviderView = z.object({
  id: z.string(),
  name: z.string(),
  kind: z.enum(['llm', 'tool', 'git']),
  key_format: z.string().nullable(),
  requires_key: z.boolean(),
  requires_endpoint: z.boolean(),
  /** True when the caller has stored a key for it. */
  configured: z.boolean(),
  key_count: z.number().int(),
  docs_url: z.string().nullable(),
  models: z.array(z.string()),
});
export type ProviderView = z.output<typeof ProviderView>;

/** The owner's view of a key. No response contains the key itself. */
export const KeyView = z.object({
  id: z.string(),
  scope: z.literal('personal'),
  provider: z.string(),
  provider_name: z.string(),
  key_preview: z.string(),
  label: z.string().nullable(),
  endpoint: z.string().nullable(),
  /** Names the endpoint in model names; null where the provider has an address of its own. */
  endpoint_slug: z.string().nullable(),
  enabled: z.boolean(),
  added_date: dateTime,
  updated_date: dateTime,
  expires_at: dateTime.nullable(),
  last_used: dateTime.nullable(),
  last_tested: dateTime.nullable(),
  test_status: z.enum(KEY_TEST_STATUSES),
  test_message: z.string().nullable(),
  /** Of the stored value. In quotes, it is the key's `ETag`. */
  version: z.string(),
});
export type KeyView = z.output<typeof KeyView>;

/** Null or a blank text clears the label. */
const label = z
  .string()
  .trim()
  .max(120, 'must have 120 characters or fewer')
  .superRefine(refuseHiddenCharacters)
  .transform((text) => (text === '' ? null : text))
  .nullable();

/**
 * The key's format is checked per provider, with its own error codes. With `key_id` it replaces that key in place, and
 * missing members stay as stored.
 */
export const AddKey = z.strictObject({
  provider: z.string(),
  key: z.string(),
  label: label.optional(),
  endpoint: z
    .string()
    .trim()
    .max(256, 'must have 256 characters or fewer')
    .transform((text) => (text === '' ? null : text))
    .nullish(),
  key_id: z.string().min(1, 'must not be empty').optional(),
  expires_at: FutureDate.nullish(),
  validate: z.boolean().optional(),
});
export type AddKey = z.output<typeof AddKey>;

export const KeyParams = z.object({ provider: z.string(), key_id: z.string() });

/** At least one member. Missing members stay as stored. */
export const UpdateKey = z
  .strictObject({
    label: label.optional(),
    enabled: z.boolean().optional(),
    expires_at: FutureDate.nullish(),
    endpoint: z
      .undefined('needs the key again: replace it with POST /api/v1/byok/keys/add and its key_id')
      .optional(),
  })
  .refine((change) => Object.keys(change).length > 0, 'must change something: label, enabled or expires_at');
export type UpdateKey = z.output<typeof UpdateKey>;

export const KeyAdded = z.object({
  message: z.string(),
  provider: z.string(),
  provider_name: z.string(),
  key: KeyView,
});
export type KeyAdded = z.output<typeof KeyAdded>;

export const ProviderParams = z.object({ provider: z.string() });
/** Strict, and never empty: a mistyped or blank `key_id` must not become "all". */
export const KeyQuery = z.strictObject({ key_id: z.string().min(1, 'must not be empty').optional() });

export const KeysDeleted = z.object({ message: z.string(), deleted: z.number().int() });
export type KeysDeleted = z.output<typeof KeysDeleted>;

/** The result of testing one key. */
export const KeyTested = z.object({
  provider: z.string(),
  key_id: z.string(),
  status: z.enum(KEY_TEST_STATUSES),
  message: z.string(),
  details: z.object({
    latency_ms: z.number().int().nullable(),
    http_status: z.number().int().nullable(),
    /** True when the provider charges the owner for this test, or may do so. */
    billed: z.boolean(),
  }),
});
export type KeyTested = z.output<typeof KeyTested>;

/** The top level holds the requested key, or the one with the worst result. */
export const KeysTested = KeyTested.extend({ results: z.array(KeyTested) });
export type KeysTested = z.output<typeof KeysTested>;

export const KeyStats = z.object({
  total_providers: z.number().int(),
  configured_providers: z.number().int(),
  /** Providers with a key that is not `untested`. */
  tested_providers: z.number().int(),
  /** Providers with a `valid` key. */
  valid_providers: z.number().int(),
  user_tier: z.string(),
  providers: z.record(z.string(), z.object({ key_count: z.number().int(), valid_count: z.number().int() })),
});
export type KeyStats = z.output<typeof KeyStats>;
