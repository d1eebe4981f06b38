import { z } from 'zod';

/** The part of JSON Schema that the demo supports; anything else is ignored. */
const ParameterSchema = z.looseObject({
  type: z
    .union([z.string(), z.array(z.string())])
    .optional()
    .catch(undefined),
  enum: z.array(z.unknown()).optional().catch(undefined),
  const: z.unknown().optional(),
  default: z.unknown().optional(),
  minimum: z.number().optional().catch(undefined),
  properties: z.record(z.string(), z.unknown()).optional().catch(undefined),
});

/** Schemas are client input and may be nested deeply. */
const MAX_DEPTH = 4;

/** Creates arguments that match a tool's `parameters` (a JSON Schema of an object). */
export function createArguments(parameters: unknown): Record<string, unknown> {
  return createObject(parameters, 0);
}

function createObject(schema: unknown, depth: number): Record<string, unknown> {
  const properties = ParameterSchema.safeParse(schema).data?.properties ?? {};
  // fromEntries keeps a property named __proto__ as a plain property.
  return Object.fromEntries(
    Object.entries(properties).map(([name, property]) => [name, createValue(property, depth + 1)]),
  );
}

function createValue(input: unknown, depth: number): unknown {
  const schema = ParameterSchema.safeParse(input).data ?? {};
  const given = [schema.const, schema.default, schema.enum?.[0]].find((value) => value !== undefined);
  if (given !== undefined) return given;
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === 'number' || type === 'integer') return Math.ceil(schema.minimum ?? 1);
  if (type === 'boolean') return true;
  if (type === 'null') return null;
  if (type === 'array') return [];
  if (type === 'object') return depth < MAX_DEPTH ? createObject(input, depth) : {};
  return 'demo';
}
