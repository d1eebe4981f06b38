import { z } from 'zod';

const KeyScope = z.enum(['personal', 'organization', 'system']);

/** `GET /api/v1/byok/route?model=` */
export const RoutePreviewQuery = z.strictObject({ model: z.string().max(256).optional() });

/** Who would answer, and why; the members are null when nobody would. */
export const RoutePreview = z.object({
  provider: z.string().nullable(),
  model: z.string().nullable(),
  key_scope: KeyScope.nullable(),
  key_id: z.string().nullable(),
  label: z.string().nullable(),
  reason: z.string().nullable(),
  skipped: z.array(z.object({ key_id: z.string(), reason: z.string() })),
});
export type RoutePreview = z.infer<typeof RoutePreview>;

/** `GET /v1/models`, in OpenAI's shape. */
export const ModelList = z.object({
  object: z.literal('list'),
  data: z.array(
    z.object({
      /** `provider/model`, as a request may name it. */
      id: z.string(),
      object: z.literal('model'),
      /** Epoch seconds; 0 when the provider does not tell. */
      created: z.number(),
      owned_by: z.string(),
      x_ops_scope: KeyScope,
    }),
  ),
});
export type ModelList = z.infer<typeof ModelList>;

const UpstreamListedModel = z.object({
  id: z.string().min(1).max(256),
  created: z.number().optional(),
  owned_by: z.string().max(128).optional(),
});
const MAX_MODELS = 10_000;

/** What we read of a provider's own list; other members are dropped. */
export const UpstreamModelList = z
  .object({ data: z.array(UpstreamListedModel).max(MAX_MODELS) })
  // Together's list has nothing around it (https://docs.together.ai/reference/models).
  .or(
    z
      .array(UpstreamListedModel)
      .max(MAX_MODELS)
      .transform((data) => ({ data })),
  );

/** The same from an address that is not public: it must say what it is. */
export const StrictUpstreamModelList = z.object({
  object: z.literal('list'),
  data: z.array(UpstreamListedModel.extend({ object: z.literal('model') })).max(MAX_MODELS),
});
