import { describe, expect, it } from '@jest/globals';
import {
  toAnthropicModel,
  toAnthropicPage,
} from '../../../../src/gateway/surfaces/models/anthropic-shape.ts';
import { getModel } from '../../../../src/gateway/surfaces/models/find-model.ts';
import type { CallerModel } from '../../../../src/gateway/surfaces/models/list-models.ts';
import { isAppError } from '../../../../src/lib/errors.ts';

const model = (id: string, more: Partial<CallerModel> = {}): CallerModel => ({
  id,
  name: id.slice(id.indexOf('/') + 1),
  displayName: null,
  created: 1_700_000_000,
  ownedBy: 'owner',
  scope: 'personal',
  ...more,
});
const MODELS = ['a', 'b', 'c', 'd', 'e'].map((name) => model(`p/${name}`));

function parameterOf(action: () => unknown): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    if (!isAppError(error, 'validation_failed')) throw error;
    return error.errors?.[0]?.path;
  }
}

describe('a model in Anthropic’s shape', () => {
  it('has its provider’s name where it has no other, and a date', () => {
    expect(toAnthropicModel(model('p/a/b'))).toEqual({
      type: 'model',
      id: 'p/a/b',
      display_name: 'a/b',
      created_at: '2023-11-14T22:13:20.000Z',
      x_ops_scope: 'personal',
    });
    expect(toAnthropicModel(model('p/a', { displayName: 'Model A' })).display_name).toBe('Model A');
  });

  it.each([0, -1, 1e300, NaN])('has the epoch where the date %s is none', (created) => {
    expect(toAnthropicModel(model('p/a', { created })).created_at).toBe('1970-01-01T00:00:00.000Z');
  });
});

describe('a page', () => {
  it.each<[Record<string, string>, string, boolean]>([
    [{}, 'a b c d e', false],
    [{ limit: '2' }, 'a b', true],
    [{ limit: '5' }, 'a b c d e', false],
    [{ limit: '2', after_id: 'p/b' }, 'c d', true],
    [{ limit: '2', after_id: 'p/c' }, 'd e', false],
    [{ limit: '2', after_id: 'p/e' }, '', false],
    [{ limit: '2', before_id: 'p/d' }, 'b c', true],
    [{ limit: '2', before_id: 'p/c' }, 'a b', false],
    [{ limit: '2', before_id: 'p/a' }, '', false],
    [{ before_id: 'p/b' }, 'a', false],
  ])('for %j has the models %j, and more: %s', (query, names, hasMore) => {
    const page = toAnthropicPage(MODELS, query);
    const ids = names === '' ? [] : names.split(' ').map((name) => `p/${name}`);
    expect(page.data.map(({ id }) => id)).toEqual(ids);
    expect(page).toMatchObject({
      has_more: hasMore,
      first_id: ids[0] ?? null,
      last_id: ids.at(-1) ?? null,
    });
  });

  it('has 20 models where no limit is asked for', () => {
    const many = Array.from({ length: 21 }, (_, index) => model(`p/${index}`));
    expect(toAnthropicPage(many, {})).toMatchObject({ has_more: true, last_id: 'p/19' });
  });

  it.each<[Record<string, unknown>, string]>([
    ...['0', '1001', '-1', '1.5', 'many', '', ['1', '2']].map((limit): [Record<string, unknown>, string] => [
      { limit },
      'limit',
    ]),
    [{ after_id: 'p/x' }, 'after_id'],
    [{ before_id: ['p/a', 'p/b'] }, 'before_id'],
    [{ before_id: 'p/a', after_id: 'p/b' }, 'before_id'],
  ])('for %j is refused and names the parameter %s', (query, parameter) => {
    expect(parameterOf(() => toAnthropicPage(MODELS, query))).toBe(parameter);
  });
});

describe('a model by its id', () => {
  const models = [model('p/vendor/m'), model('p/Same'), model('q/Same'), model('q/vendor/n')];

  it.each([
    ['p/vendor/m', 'p/vendor/m'],
    ['P/Vendor/M', 'p/vendor/m'],
    ['vendor/m', 'p/vendor/m'],
    ['q/same', 'q/Same'],
  ])('%s is %s', (id, found) => {
    expect(getModel(models, id).id).toBe(found);
  });

  it.each([
    ['Same', ['p/Same', 'q/Same']],
    ['p/vendor/mm', ['p/vendor/m', 'q/vendor/n']],
    ['\u202Eevil', []],
  ])('%s is not found; similar ones are named', (id, candidates) => {
    expect(() => getModel(models, id)).toThrow(
      expect.objectContaining({ code: 'model_not_found', extra: { candidates } }),
    );
    expect(() => getModel(models, id)).not.toThrow(/\u202E/);
  });
});
