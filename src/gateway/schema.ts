import { z } from 'zod';

const KeyScope = z.enum(['personal', 'organization', 'system']);

/** `GET /api/v1/byok/route?model=` */
export const RoutePreviewQuery = z.strictObject({ model: z.string().max(256).optional() });

/** Which provider and key would serve a request, and why. The members are null when the request would be refused. */
export const RoutePreview = z.object({
  provider: z.string().nullable(),
  model: z.string().nullable(),
  key_scope: KeyScope.nullable(),
  /** Null where the provider has an address of its own. */
  endpoint_slug: z.string().nullable(),
  key_id: z.string().nullable(),
  label: z.string().nullable(),
  reason: z.string().nullable(),
  skipped: z.array(z.object({ key_id: z.string(), reason: z.string() })),
  /** Names to choose from when the model's name is ambiguous, or similar ones when no list has it. */
  candidates: z.array(z.string()),
  /** False when the answer depends on model lists that were not read yet: a request would read them. */
  lists_read: z.boolean(),
});
export type RoutePreview = z.infer<typeof RoutePreview>;

const ProtocolModel = z.object({
  id: z.string().min(1).max(256),
  created: z.number().optional(),
  owned_by: z.string().max(128).optional(),
});
/** Anthropic's members, which other lists may have with other values. */
const UpstreamListedModel = ProtocolModel.extend({
  display_name: z.string().max(256).optional().catch(undefined),
  created_at: z.iso.datetime({ offset: true }).optional().catch(undefined),
});
export type UpstreamListedModel = z.infer<typeof UpstreamListedModel>;
const MAX_MODELS = 10_000;

/** The members that are read from a provider's list; others are dropped. */
export const UpstreamModelList = z
  .object({ data: z.array(UpstreamListedModel).max(MAX_MODELS) })
  // Together returns a bare array (https://docs.together.ai/reference/models).
  .or(
    z
      .array(UpstreamListedModel)
      .max(MAX_MODELS)
      .transform((data) => ({ data })),
  );

/** The same for a private address, with the `object` members of the protocol required. */
export const StrictUpstreamModelList = z.object({
  object: z.literal('list'),
  data: z.array(ProtocolModel.extend({ object: z.literal('model') })).max(MAX_MODELS),
});
