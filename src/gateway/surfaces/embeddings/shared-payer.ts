import { wrongFieldType } from '../../admission/request-body.ts';

/** Fields that shape this response only. */
export const EMBEDDINGS_FIELDS: ReadonlySet<string> = new Set([
  'dimensions',
  'encoding_format',
  'input',
  'model',
  'user',
]);

/** OpenAI accepts as many (https://platform.openai.com/docs/api-reference/embeddings/create). */
const MAX_INPUTS = 2_048;
const MAX_DIMENSIONS = 16_384;
const TEXT_FIELDS = ['encoding_format', 'user'];

/**
 * An input is text or tokens. Other inputs of other vendors, such as images at an address, are not accepted: their
 * price differs, and the upstream, which can be the operator's own, would fetch them.
 * @returns the number of members of all objects.
 * @throws AppError `validation_failed` for values that a shared payer does not accept.
 */
export function checkEmbeddingsValues(body: Readonly<Record<string, unknown>>): number {
  const { input, dimensions } = body;
  if (!isInput(input))
    throw wrongFieldType('input', `a text, or an array of at most ${MAX_INPUTS} texts or arrays of tokens`);
  const isSize = Number.isInteger(dimensions) && Number(dimensions) >= 1;
  if (isPresent(dimensions) && !(isSize && Number(dimensions) <= MAX_DIMENSIONS))
    throw wrongFieldType('dimensions', `a whole number from 1 to ${MAX_DIMENSIONS} where the system pays`);
  for (const field of TEXT_FIELDS)
    if (isPresent(body[field]) && typeof body[field] !== 'string') throw wrongFieldType(field, 'a string');
  return countMembers(body);
}

function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** A text, the tokens of one, or a list of these. A missing input is the provider's to refuse. */
function isInput(input: unknown): boolean {
  if (input === undefined || typeof input === 'string' || isTokens(input)) return true;
  if (!Array.isArray(input) || input.length > MAX_INPUTS) return false;
  return input.every((one) => typeof one === 'string') || input.every(isTokens);
}

function isTokens(input: unknown): boolean {
  return Array.isArray(input) && input.every((token) => Number.isInteger(token));
}

/** Fields that the operator allows can hold objects. */
function countMembers(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  const values: unknown[] = Object.values(value);
  const own = Array.isArray(value) ? 0 : values.length;
  return values.reduce((sum: number, one) => sum + countMembers(one), own);
}
