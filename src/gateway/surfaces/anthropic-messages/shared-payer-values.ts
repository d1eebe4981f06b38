import { isObject } from '../../../providers/provider.ts';
import { fieldNotAllowed, wrongFieldType } from '../../admission/request-body.ts';
import { DEFAULT_CACHE_TTL, foldMemberName, SCHEMA_REFERENCES } from '../../admission/shared-payer-values.ts';

/** The members of an object in an array. @throws AppError `validation_failed` for any other value. */
export function listObjectMembers(value: unknown, field: string): [string, unknown][] {
  if (!isObject(value)) throw wrongFieldType(field, 'an array of objects');
  return Object.entries(value);
}

/**
 * True when an object has a cache with another lifetime than by default, in any spelling. Writing to a cache for an hour
 * costs twice the input; for the default lifetime it costs 1.25 times the input.
 */
export function hasExtendedCache(object: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(object).some(
    ([name, value]) =>
      isObject(value) &&
      foldMemberName(name) === 'cache_control' &&
      Object.entries(value).some(
        ([member, ttl]) => foldMemberName(member) === 'ttl' && ttl !== null && ttl !== DEFAULT_CACHE_TTL,
      ),
  );
}

/** @throws AppError `field_not_allowed` for a schema that refers to another address. */
export function checkSchema(value: unknown, path: string): void {
  if (typeof value !== 'object' || value === null) return;
  if (Array.isArray(value)) {
    for (const item of value) checkSchema(item, path);
    return;
  }
  for (const [name, member] of Object.entries(value)) {
    const isReference = name.startsWith('$') && SCHEMA_REFERENCES.has(foldMemberName(name));
    if (isReference && typeof member === 'string' && !member.startsWith('#'))
      throw fieldNotAllowed(`${path}.${name}`);
    checkSchema(member, path);
  }
}

/** The number of members of all objects in a value. */
export function countMembers(value: unknown): number {
  if (Array.isArray(value)) return value.reduce<number>((sum, item) => sum + countMembers(item), 0);
  if (!isObject(value)) return 0;
  const members = Object.values(value);
  return members.reduce<number>((sum, member) => sum + countMembers(member), members.length);
}
