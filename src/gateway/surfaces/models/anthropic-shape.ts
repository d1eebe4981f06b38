import { AppError } from '../../../lib/errors.ts';
import type { CallerModel } from './list-models.ts';

/** https://platform.claude.com/docs/en/api/models/retrieve */
interface AnthropicModel {
  type: 'model';
  id: string;
  display_name: string;
  /** ISO 8601. The epoch where the date is not known, as in Anthropic's own lists. */
  created_at: string;
  x_ops_scope: CallerModel['scope'];
}

/** A page of https://platform.claude.com/docs/en/api/models/list */
interface AnthropicModelPage {
  data: AnthropicModel[];
  /** True when there are more models in the direction in which the list is read. */
  has_more: boolean;
  /** Null for an empty page. */
  first_id: string | null;
  last_id: string | null;
}

/** The query of a request, as it was sent. */
type ModelPageQuery = Readonly<Record<string, unknown>>;

const DEFAULT_LIMIT = 20;
const MAX_LIMIT = 1_000;
const MAX_EPOCH_S = 8.64e12;

export function toAnthropicModel({ id, name, displayName, created, scope }: CallerModel): AnthropicModel {
  const isDate = created >= 0 && created <= MAX_EPOCH_S;
  return {
    type: 'model',
    id,
    display_name: displayName ?? name,
    created_at: new Date(isDate ? created * 1_000 : 0).toISOString(),
    x_ops_scope: scope,
  };
}

/**
 * The page that the query asks for: `limit` models (1 to 1,000, by default 20) directly after `after_id`, or directly
 * before `before_id`, or the first ones.
 * @throws AppError `validation_failed` for another limit, both ids, or an id that is not in the list.
 */
export function toAnthropicPage(models: readonly CallerModel[], query: ModelPageQuery): AnthropicModelPage {
  const { after_id: afterId, before_id: beforeId } = query;
  const limit = readLimit(query['limit']);
  if (afterId !== undefined && beforeId !== undefined)
    throw invalid('before_id', 'cannot be combined with after_id');
  const end = beforeId === undefined ? models.length : findPosition(models, 'before_id', beforeId);
  const start = afterId === undefined ? 0 : findPosition(models, 'after_id', afterId) + 1;
  const page =
    beforeId === undefined ? models.slice(start, start + limit) : models.slice(0, end).slice(-limit);
  return {
    data: page.map(toAnthropicModel),
    has_more: end - start > limit,
    first_id: page[0]?.id ?? null,
    last_id: page.at(-1)?.id ?? null,
  };
}

function readLimit(value: unknown): number {
  if (value === undefined) return DEFAULT_LIMIT;
  const limit = typeof value === 'string' && /^\d{1,4}$/.test(value) ? Number(value) : 0;
  if (limit < 1 || limit > MAX_LIMIT) throw invalid('limit', `must be a whole number from 1 to ${MAX_LIMIT}`);
  return limit;
}

function findPosition(models: readonly CallerModel[], parameter: string, id: unknown): number {
  const position = models.findIndex((model) => model.id === id);
  if (position < 0)
    throw invalid(parameter, 'is no id of the list. The list may have changed: read it again');
  return position;
}

function invalid(parameter: string, message: string): AppError {
  return new AppError('validation_failed', `The parameter "${parameter}" ${message}.`, {
    errors: [{ path: parameter, message }],
  });
}
