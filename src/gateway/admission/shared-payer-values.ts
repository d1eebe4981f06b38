import { isObject } from '../../providers/provider.ts';
import { fieldNotAllowed, foldName, wrongFieldType } from './request-body.ts';
import { createSharedPayerMediaCheck } from './shared-payer-media.ts';

/** Tools that the client runs; all other types run on the payer's account. */
const CLIENT_SIDE_TOOLS = new Set<unknown>(['function', 'custom']);

/** @throws AppError `field_not_allowed` for a tool that runs on the account of the payer. */
export function refuseHostedTool(tool: unknown, field: string): void {
  // The member must be spelled exactly `type`: lax parsers accept `Type` as well.
  const types = listMembers(tool).filter(([name]) => foldName(name) === 'type');
  const [name, type] = types[0] ?? [];
  if (types.length !== 1 || name !== 'type' || !CLIENT_SIDE_TOOLS.has(type)) throw fieldNotAllowed(field);
}

/** Of one request, where a shared payer pays. */
export const MAX_OUTPUT_TOKENS = 128_000;

/** @throws AppError `validation_failed` for a limit that is no whole number, or larger than `max`. */
export function refuseNumberAbove(value: unknown, field: string, max: number): void {
  if (value === undefined || value === null) return;
  if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > max)
    throw wrongFieldType(field, `a whole number from 1 to ${max} where the system pays`);
}

/** @returns an empty list when the value is undefined. @throws AppError `validation_failed`. */
export function toArray(value: unknown, field: string): unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw wrongFieldType(field, 'an array');
  return value;
}

/** The members of an object; an empty list for any other value. */
export function listMembers(value: unknown): [string, unknown][] {
  return isObject(value) ? Object.entries(value) : [];
}

/** Members that hold media, in the spellings of several vendors: `image_url`, `imageUrl`, `input_image`, `videos`. */
const MEDIA_MEMBER = /^(input_)?(image|video|audio|file|document|media|source)s?(_?(ur[il]|data)s?)?$/;
/** Members whose text is an address, whatever it looks like. */
const ADDRESS_MEMBER = /ur[il]s?$|^(src|href)$/;
/** No member that an upstream reads has a longer name. */
const MAX_NAME_LENGTH = 64;
/** A name as lax parsers compare it. */
export const foldMemberName = (name: string) => foldName(name.slice(0, MAX_NAME_LENGTH));

/** The lifetime of a cache that upstreams use by default. */
export const DEFAULT_CACHE_TTL = '5m';
/** Members by which a JSON schema names another one, from draft 4 to 2020-12. */
export const SCHEMA_REFERENCES: ReadonlySet<string> = new Set(['$ref', '$dynamicref', '$recursiveref']);

/** What a value is. Its members have other rules in a message than in a schema. */
export type ValueKind = 'messages' | 'message' | 'content' | 'part' | 'in message' | 'schema' | 'other';

/** What a surface says of the values in a body. */
export interface BodyShape {
  /** What the value of a field is; `other` for a field that is not named. */
  kindByField: ReadonlyMap<string, ValueKind>;
  /** Members of a message that hold a text or parts. */
  contentMembers: ReadonlySet<string>;
  /** Types of parts that contain their content and that are billed as tokens. */
  inlineParts: ReadonlySet<unknown>;
}

/** Where a value is, and what the members around it say about it. */
interface ValuePosition {
  /** The member that holds the value; undefined for a field of the body. */
  parent: ValuePosition | undefined;
  name: string;
  kind: ValueKind;
  isMedia: boolean;
  isAddress: boolean;
  isInAudio: boolean;
}

/**
 * Checks all values of a body. A body within the limits has 100,000 members and 1,000,000 elements, so each is visited
 * once, for all rules:
 * - Ids of uploaded files and earlier audio responses belong to the account, not to the user. They are searched at every
 *   depth, since upstreams accept references in different positions.
 * - Media are data of images or audio, or at public https. The upstream can be the operator's own, in whose network a user
 *   must not read; and documents start a tool that costs.
 * - Content parts have a type of the protocol whose content is in the part, and none starts a tool that costs.
 * - A cache has its default lifetime.
 * - A schema refers only to itself, since an upstream may fetch what it refers to.
 * @returns the number of members of all objects.
 * @throws AppError `field_not_allowed`, `validation_failed` naming the member.
 */
export function walkSharedPayerBody(body: Readonly<Record<string, unknown>>, shape: BodyShape): number {
  let members = 0;
  const isSharedPayerMedia = createSharedPayerMediaCheck();
  const findNameRules = createNameRules();

  function walk(value: unknown, position: ValuePosition): void {
    if (typeof value === 'string') {
      if (position.isMedia && !isSharedPayerMedia(value, position.isAddress))
        throw fieldNotAllowed(toPath(position));
    } else if (Array.isArray(value)) walkArray(value, position);
    else if (isObject(value)) walkObject(value, position);
  }

  function walkArray(items: readonly unknown[], position: ValuePosition): void {
    const itemKind = ITEM_KINDS.get(position.kind);
    if (itemKind === undefined) for (const item of items) walk(item, position);
    else {
      const itemPosition = { ...position, kind: itemKind };
      for (const item of items) {
        if (!isObject(item)) throw wrongFieldType(toPath(position), 'an array of objects');
        walkObject(item, itemPosition);
      }
    }
  }

  function walkObject(value: Record<string, unknown>, position: ValuePosition): void {
    const names = Object.keys(value);
    members += names.length;
    if (position.kind === 'other') for (const name of names) walk(value[name], position);
    else if (position.kind === 'schema')
      for (const name of names) walkSchemaMember(name, value[name], position);
    else walkMessageMembers(value, names, position);
  }

  function walkSchemaMember(name: string, item: unknown, position: ValuePosition): void {
    if (extendsCache(position, name, item)) throw fieldNotAllowed(toPath(position, name));
    const isReference = name.startsWith('$') && SCHEMA_REFERENCES.has(foldMemberName(name));
    if (isReference && typeof item === 'string' && !item.startsWith('#'))
      throw fieldNotAllowed(toPath(position, name));
    if (typeof item === 'object' && item !== null) walk(item, { ...position, parent: position, name });
  }

  function walkMessageMembers(
    value: Record<string, unknown>,
    names: readonly string[],
    position: ValuePosition,
  ): void {
    const { type } = value;
    // A part can name its kind beside its address: `{"type": "image_url", "url": ...}`.
    const isMedia = position.isMedia || (typeof type === 'string' && MEDIA_MEMBER.test(type));
    let typeCount = 0;
    for (const name of names) {
      const item = value[name];
      const rules = findNameRules(name);
      if (rules.folded === 'type') typeCount += 1;
      const isReference = rules.folded === 'file_id' || (position.isInAudio && rules.folded === 'id');
      if (isReference || extendsCache(position, name, item)) throw fieldNotAllowed(toPath(position, name));
      const isContent = position.kind === 'message' && shape.contentMembers.has(rules.folded);
      if (isContent && !isMessageContent(item))
        throw wrongFieldType(toPath(position, name), 'a string, null or an array');
      const isText = typeof item === 'string';
      if (isText ? !isMedia && !rules.isMedia : typeof item !== 'object') continue;
      walk(item, {
        parent: position,
        name,
        kind: isContent ? 'content' : 'in message',
        isMedia: isMedia || rules.isMedia,
        isAddress: rules.isAddress,
        isInAudio: position.isInAudio || rules.folded === 'audio',
      });
    }
    // The member must be spelled exactly `type`: lax parsers accept `Type` as well.
    if (position.kind === 'part' && (typeCount !== 1 || !shape.inlineParts.has(type)))
      throw fieldNotAllowed(toPath(position, 'type'));
  }

  const flags = { isMedia: false, isAddress: false, isInAudio: false };
  for (const [name, value] of Object.entries(body)) {
    members += 1;
    walk(value, { parent: undefined, name, kind: shape.kindByField.get(name) ?? 'other', ...flags });
  }
  return members;
}

/** Kinds of arrays whose items are objects of another kind. */
const ITEM_KINDS: ReadonlyMap<ValueKind, ValueKind> = new Map([
  ['messages', 'message'],
  ['content', 'part'],
]);

function isMessageContent(value: unknown): boolean {
  return value === null || typeof value === 'string' || Array.isArray(value);
}

/**
 * Writing to a cache for an hour costs twice the input. For the default lifetime it costs at most 1.25 times the input,
 * so `cache_control` itself is passed: clients mark parts and tools with it for every model.
 */
function extendsCache(position: ValuePosition, name: string, value: unknown): boolean {
  if (value === null || value === DEFAULT_CACHE_TTL || foldMemberName(name) !== 'ttl') return false;
  return foldMemberName(position.name) === 'cache_control';
}

/** The names from the field of the body to the position, or to a member of its value. */
function toPath(position: ValuePosition, member?: string): string {
  const names = member === undefined ? [] : [member];
  for (let at: ValuePosition | undefined = position; at !== undefined; at = at.parent) names.unshift(at.name);
  return names.map((name) => name.slice(0, MAX_NAME_LENGTH)).join('.');
}

/** What a name says of its value. */
type NameRules = { folded: string } & Pick<ValuePosition, 'isMedia' | 'isAddress'>;

/** More names than requests have. Each is judged once, however often it occurs. */
const MAX_KNOWN_NAMES = 1_000;

function createNameRules(): (name: string) => NameRules {
  const known = new Map<string, NameRules>();
  return (name) => {
    const found = known.get(name);
    if (found !== undefined) return found;
    const folded = foldMemberName(name);
    const rules = { folded, isMedia: MEDIA_MEMBER.test(folded), isAddress: ADDRESS_MEMBER.test(folded) };
    if (known.size < MAX_KNOWN_NAMES) known.set(name, rules);
    return rules;
  };
}
