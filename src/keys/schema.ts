import { z } from 'zod';

/** What is known of a key from testing and using it. */
export const TEST_STATUSES = [
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
export type TestStatus = (typeof TEST_STATUSES)[number];

const when = z.iso.datetime();

export const ProviderView = z.object({
  id: z.string(),
  name: z.string(),
  kind: z.enum(['llm', 'tool', 'git']),
  key_format: z.string().nullable(),
  requires_key: z.boolean(),
  requires_endpoint: z.boolean(),
  /** True when the caller has a key of their own for it. */
  configured: z.boolean(),
  key_count: z.number().int(),
  docs_url: z.string().nullable(),
  models: z.array(z.string()),
});
export type ProviderView = z.output<typeof ProviderView>;

/** A key as its owner sees it; the key itself is in no answer. */
export const KeyView = z.object({
  id: z.string(),
  scope: z.literal('personal'),
  provider: z.string(),
  provider_name: z.string(),
  key_preview: z.string(),
  label: z.string().nullable(),
  endpoint: z.string().nullable(),
  enabled: z.boolean(),
  added_date: when,
  updated_date: when,
  expires_at: when.nullable(),
  last_used: when.nullable(),
  last_tested: when.nullable(),
  test_status: z.enum(TEST_STATUSES),
  test_message: z.string().nullable(),
});
export type KeyView = z.output<typeof KeyView>;

const label = z
  .string()
  .trim()
  .max(120, 'must have 120 characters or fewer')
  .regex(/^\P{Cc}*$/u, 'must not contain control characters')
  .transform((text) => (text === '' ? null : text));

/** What the key must look like is the provider's business, with error codes of its own. */
export const AddKey = z.strictObject({
  provider: z.string(),
  key: z.string(),
  label: label.nullish().transform((text) => text ?? null),
  endpoint: z
    .string()
    .trim()
    .max(256, 'must have 256 characters or fewer')
    .nullish()
    .transform((text) => (text === undefined || text === '' ? null : text)),
});
export type AddKey = z.output<typeof AddKey>;

export const KeyAdded = z.object({
  message: z.string(),
  provider: z.string(),
  provider_name: z.string(),
  key: KeyView,
});
export type KeyAdded = z.output<typeof KeyAdded>;

export const DeleteKeyParams = z.object({ provider: z.string() });
/** Strict, and never empty: a mistyped or blank `key_id` must not become "delete all". */
export const DeleteKeyQuery = z.strictObject({ key_id: z.string().min(1, 'must not be empty').optional() });

export const KeysDeleted = z.object({ message: z.string(), deleted: z.number().int() });
export type KeysDeleted = z.output<typeof KeysDeleted>;

export const KeyStats = z.object({
  total_providers: z.number().int(),
  configured_providers: z.number().int(),
  /** Providers with a key of which something is known. */
  tested_providers: z.number().int(),
  /** Providers with a key that is known to work. */
  valid_providers: z.number().int(),
  user_tier: z.string(),
  providers: z.record(z.string(), z.object({ key_count: z.number().int(), valid_count: z.number().int() })),
});
export type KeyStats = z.output<typeof KeyStats>;
