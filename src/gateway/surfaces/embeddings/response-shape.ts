import { hasErrorText, isErrorObject } from '../../../providers/protocol-error.ts';
import { isObject } from '../../../providers/provider.ts';
import { isVector } from './vectors.ts';

/**
 * True for a list of embeddings. From a public address, any object with `data` whose entries have an `embedding` is one.
 * A user can point a key at any service at a private address, so another service's response must not match by chance:
 * there each embedding is a vector, and its entry says its place or its type.
 */
export function isEmbeddingsResponse(value: unknown, isPublic: boolean): boolean {
  if (!isObject(value) || !Array.isArray(value['data'])) return false;
  const entries: unknown[] = value['data'];
  if (isPublic) return entries.every((entry) => isObject(entry) && 'embedding' in entry);
  return entries.length > 0 && entries.every(isEmbedding);
}

function isEmbedding(entry: unknown): boolean {
  if (!isObject(entry) || !isVector(entry['embedding'])) return false;
  return entry['object'] === 'embedding' || typeof entry['index'] === 'number';
}

/**
 * True for a body that reports an error, regardless of its status: an `error` at the top, an object that names itself an
 * error, or `data: []` beside the text of an error.
 */
export function hasEmbeddingsError(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(hasEmbeddingsError);
  if (!isObject(value)) return false;
  const { data } = value;
  return isErrorObject(value) || (Array.isArray(data) && data.length === 0 && hasErrorText(value));
}
