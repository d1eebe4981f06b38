import { isPublicHttpsAddress } from '../../../lib/net/public-address.ts';
import { isObject } from '../../../providers/provider.ts';
import { fieldNotAllowed, foldName, wrongFieldType } from '../../admission/request-body.ts';

/** Members that hold media, in the spellings of several vendors: `image_url`, `imageUrl`, `input_image`, `videos`. */
const MEDIA_MEMBER = /^(input_)?(image|video|audio|file|document|media|source)s?(_?(ur[il]|data)s?)?$/;
/** Members whose text is an address, whatever it looks like. */
const ADDRESS_MEMBER = /ur[il]s?$|^(src|href)$/;
/** Not `//` alone: media in base64 can begin with it. */
const BEGINS_LIKE_ADDRESS = /^[\s\p{Cc}]*([a-z][a-z0-9+.-]+:[\\/]{2}|(file|gs|s3|ftp|https?):)/iu;
/** No member that an upstream reads has a longer name. */
const MAX_NAME_LENGTH = 64;
/** Content parts that the protocol documents and that contain their content; `file_id` is refused in all of them. */
const INLINE_PARTS: ReadonlySet<unknown> = new Set(['text', 'image_url', 'input_audio', 'refusal', 'file']);
/** Members by which a JSON schema names another one, from draft 4 to 2020-12. */
const SCHEMA_REFERENCES: ReadonlySet<string> = new Set(['$ref', '$dynamicref', '$recursiveref']);

/** What a value is. Its members have other rules in a message than in a schema. */
type Kind = 'messages' | 'message' | 'content' | 'part' | 'in message' | 'schema' | 'other';

const KIND_BY_FIELD: ReadonlyMap<string, Kind> = new Map([
  ['messages', 'messages'],
  ['prediction', 'message'],
  ['tools', 'schema'],
  ['functions', 'schema'],
  ['response_format', 'schema'],
]);

/** Where a value is, and what the members around it say about it. */
interface Place {
  /** The member that holds the value; undefined for a field of the body. */
  parent: Place | undefined;
  name: string;
  kind: Kind;
  isMedia: boolean;
  isAddress: boolean;
  isInAudio: boolean;
}

/**
 * Checks all values of a body. A body within the limits has 100,000 members and 1,000,000 elements, so each is visited
 * once, for all rules:
 * - Ids of uploaded files and earlier audio responses belong to the account, not to the user. They are searched at every
 *   depth, since upstreams accept references in different positions.
 * - Media are data, or at public https. The upstream can be the operator's own, in whose network a user must not read.
 * - Content parts have a type of the protocol whose content is in the part.
 * - A schema refers only to itself, since an upstream may fetch what it refers to.
 * @returns the number of members of all objects.
 * @throws AppError `field_not_allowed`, `validation_failed` naming the member.
 */
export function walkSharedPayerBody(body: Readonly<Record<string, unknown>>): number {
  let members = 0;
  const findNameRules = createNameRules();

  function walk(value: unknown, place: Place): void {
    if (typeof value === 'string') refusePrivateMedia(value, place);
    else if (Array.isArray(value)) walkArray(value, place);
    else if (isObject(value)) walkObject(value, place);
  }

  function walkArray(items: readonly unknown[], place: Place): void {
    const itemKind = ITEM_KINDS.get(place.kind);
    if (itemKind === undefined) for (const item of items) walk(item, place);
    else {
      const itemPlace = { ...place, kind: itemKind };
      for (const item of items) {
        if (!isObject(item)) throw wrongFieldType(toPath(place), 'an array of objects');
        walkObject(item, itemPlace);
      }
    }
  }

  function walkObject(value: Record<string, unknown>, place: Place): void {
    const names = Object.keys(value);
    members += names.length;
    if (place.kind === 'other') for (const name of names) walk(value[name], place);
    else if (place.kind === 'schema') for (const name of names) walkSchemaMember(name, value[name], place);
    else walkMessageMembers(value, names, place);
  }

  function walkSchemaMember(name: string, item: unknown, place: Place): void {
    const isReference =
      name.startsWith('$') && SCHEMA_REFERENCES.has(foldName(name.slice(0, MAX_NAME_LENGTH)));
    if (isReference && typeof item === 'string' && !item.startsWith('#'))
      throw fieldNotAllowed(toPath(place, name));
    if (typeof item === 'object' && item !== null) walk(item, { ...place, parent: place, name });
  }

  function walkMessageMembers(value: Record<string, unknown>, names: readonly string[], place: Place): void {
    const { type } = value;
    // A part can name its kind beside its address: `{"type": "image_url", "url": ...}`.
    const isMedia = place.isMedia || (typeof type === 'string' && MEDIA_MEMBER.test(type));
    let typeCount = 0;
    for (const name of names) {
      const item = value[name];
      const rules = findNameRules(name);
      if (rules.folded === 'type') typeCount += 1;
      if (rules.folded === 'file_id' || (place.isInAudio && rules.folded === 'id'))
        throw fieldNotAllowed(toPath(place, name));
      const isContent = place.kind === 'message' && rules.folded === 'content';
      if (isContent && !isMessageContent(item))
        throw wrongFieldType(toPath(place, name), 'a string, null or an array');
      const isText = typeof item === 'string';
      if (isText ? !isMedia && !rules.isMedia : typeof item !== 'object') continue;
      walk(item, {
        parent: place,
        name,
        kind: isContent ? 'content' : 'in message',
        isMedia: isMedia || rules.isMedia,
        isAddress: rules.isAddress,
        isInAudio: place.isInAudio || rules.folded === 'audio',
      });
    }
    // The member must be spelled exactly `type`: lax parsers accept `Type` as well.
    if (place.kind === 'part' && (typeCount !== 1 || !INLINE_PARTS.has(type)))
      throw fieldNotAllowed(toPath(place, 'type'));
  }

  const flags = { isMedia: false, isAddress: false, isInAudio: false };
  for (const [name, value] of Object.entries(body)) {
    members += 1;
    walk(value, { parent: undefined, name, kind: KIND_BY_FIELD.get(name) ?? 'other', ...flags });
  }
  return members;
}

/** Kinds of arrays whose items are objects of another kind. */
const ITEM_KINDS: ReadonlyMap<Kind, Kind> = new Map([
  ['messages', 'message'],
  ['content', 'part'],
]);

function isMessageContent(value: unknown): boolean {
  return value === null || typeof value === 'string' || Array.isArray(value);
}

function refusePrivateMedia(text: string, place: Place): void {
  if (!place.isMedia) return;
  // The search for a colon is fast for media in base64, and for many short texts.
  const isAddress = place.isAddress || (text.includes(':') && BEGINS_LIKE_ADDRESS.test(text));
  if (isAddress && !text.startsWith('data:') && !isPublicHttpsAddress(text))
    throw fieldNotAllowed(toPath(place));
}

/** The names from the field of the body to a member of the place, or to the place itself. */
function toPath(place: Place, member?: string): string {
  const names = member === undefined ? [] : [member];
  for (let at: Place | undefined = place; at !== undefined; at = at.parent) names.unshift(at.name);
  return names.map((name) => name.slice(0, MAX_NAME_LENGTH)).join('.');
}

/** What a name says of its value. */
interface NameRules {
  folded: string;
  isMedia: boolean;
  isAddress: boolean;
}

/** More names than requests have. Each is judged once, however often it occurs. */
const MAX_KNOWN_NAMES = 1_000;

function createNameRules(): (name: string) => NameRules {
  const known = new Map<string, NameRules>();
  return (name) => {
    const found = known.get(name);
    if (found !== undefined) return found;
    const folded = foldName(name.slice(0, MAX_NAME_LENGTH));
    const rules = { folded, isMedia: MEDIA_MEMBER.test(folded), isAddress: ADDRESS_MEMBER.test(folded) };
    if (known.size < MAX_KNOWN_NAMES) known.set(name, rules);
    return rules;
  };
}
