import { z } from 'zod';

const Scope = z.enum(['personal', 'organization', 'system']);

/** `GET /api/v1/byok/route?model=` */
export const RouteQuery = z.strictObject({ model: z.string().max(256).optional() });

/** Who would answer, and why; the members are null when nobody would. */
export const RouteAnswer = z.object({
  provider: z.string().nullable(),
  model: z.string().nullable(),
  key_scope: Scope.nullable(),
  key_id: z.string().nullable(),
  label: z.string().nullable(),
  reason: z.string().nullable(),
  skipped: z.array(z.object({ key_id: z.string(), reason: z.string() })),
});
export type RouteAnswer = z.infer<typeof RouteAnswer>;

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
      x_ops_scope: Scope,
    }),
  ),
});
export type ModelList = z.infer<typeof ModelList>;

const UpstreamModel = z.object({
  id: z.string().min(1).max(256),
  created: z.number().optional(),
  owned_by: z.string().max(128).optional(),
});
const MOST_MODELS = 10_000;

/** What we read of a provider's own list; other members are dropped. */
export const UpstreamModelList = z
  .object({ data: z.array(UpstreamModel).max(MOST_MODELS) })
  // Together's list has nothing around it (https://docs.together.ai/reference/models).
  .or(
    z
      .array(UpstreamModel)
      .max(MOST_MODELS)
      .transform((data) => ({ data })),
  );

/** The same from an address that is not public: it must say what it is. */
export const StrictModelList = z.object({
  object: z.literal('list'),
  data: z.array(UpstreamModel.extend({ object: z.literal('model') })).max(MOST_MODELS),
});
