import { isObject } from '../../../providers/provider.ts';
import { fieldNotAllowed, foldName, wrongFieldType } from '../../admission/request-body.ts';
import { createSharedPayerMediaCheck } from '../../admission/shared-payer-media.ts';

/** Fields that shape this response only and use no stored objects or hosted tools. */
export const SHARED_PAYER_FIELDS: ReadonlySet<string> = new Set([
  ...['frequency_penalty', 'function_call', 'functions', 'logit_bias', 'logprobs', 'max_completion_tokens'],
  ...['max_tokens', 'messages', 'model', 'n', 'parallel_tool_calls', 'prediction', 'presence_penalty'],
  ...['reasoning_effort', 'response_format', 'safety_identifier', 'seed', 'stop', 'store', 'stream'],
  ...['stream_options', 'temperature', 'tool_choice', 'tools', 'top_logprobs', 'top_p', 'user'],
  ...['verbosity'],
]);

const isAnything = () => true;

/**
 * Fields that SDKs and agents send by themselves. They are left out, since their values belong to the account (caches,
 * stored metadata) or to another vendor's API. Without them the model answers as it does by default, which can cost more
 * than the request meant (`reasoning: {enabled: false}`) within the limit of output tokens; the response names them.
 */
export const DROPPED_FIELDS: ReadonlyMap<string, (value: unknown) => boolean> = new Map([
  // OpenAI
  ['metadata', isAnything],
  ['prompt_cache_key', isAnything],
  ['prompt_cache_retention', isAnything],
  // Another tier has another price, and another modality another kind of response.
  ['service_tier', (value) => [null, 'auto', 'default'].includes(value as string | null)],
  ['modalities', isTextOnly],
  ['audio', (value) => value === null],
  // OpenRouter
  ['reasoning', isAnything],
  ['include_reasoning', isAnything],
  ['usage', isAnything],
  ['session_id', isAnything],
  // Anthropic and DeepSeek through OpenAI's protocol
  ['thinking', isAnything],
  ['cache_control', isAnything],
]);

const MAX_CHOICES = 8;
const MAX_OUTPUT_TOKENS = 128_000;

/**
 * @returns the number of members of all objects.
 * @throws AppError `field_not_allowed`, `validation_failed` for values that a shared payer does not accept.
 */
export function checkSharedPayerValues(body: Readonly<Record<string, unknown>>): number {
  const { store, tools, functions, messages } = body;
  if (store !== undefined && store !== null && store !== false) throw fieldNotAllowed('store');
  for (const tool of toArray(tools, 'tools')) refuseHostedTool(tool, 'tools');
  for (const one of toArray(functions ?? undefined, 'functions')) refuseHostedFunction(one, 'functions');
  refuseHostedFunction(body['function_call'], 'function_call');
  refuseHostedChoice(body['tool_choice']);
  refuseNumberAbove(body['n'], 'n', MAX_CHOICES);
  for (const name of ['max_tokens', 'max_completion_tokens'])
    refuseNumberAbove(body[name], name, MAX_OUTPUT_TOKENS);
  toArray(messages, 'messages');
  return walkBody(body);
}

function isTextOnly(value: unknown): boolean {
  return value === null || (Array.isArray(value) && value.every((one) => one === 'text'));
}

/** Tools that the client runs; all other types run on the payer's account. */
const CLIENT_SIDE_TOOLS = new Set<unknown>(['function', 'custom']);

function refuseHostedTool(tool: unknown, field: string): void {
  // The member must be spelled exactly `type`: lax parsers accept `Type` as well.
  const types = listMembers(tool).filter(([name]) => foldName(name) === 'type');
  const [name, type] = types[0] ?? [];
  if (types.length !== 1 || name !== 'type' || !CLIENT_SIDE_TOOLS.has(type)) throw fieldNotAllowed(field);
}

/** A function of the older form has no type. With one, an upstream may read it as a tool. */
function refuseHostedFunction(value: unknown, field: string): void {
  if (listMembers(value).some(([name]) => foldName(name) === 'type')) refuseHostedTool(value, field);
}

/** A word (`auto`), a client-side tool, or a list of these. */
function refuseHostedChoice(choice: unknown): void {
  const members = listMembers(choice);
  if (members.length === 0) {
    const isWord = choice === undefined || choice === null || typeof choice === 'string';
    if (!isWord) throw wrongFieldType('tool_choice', 'a word or a tool');
    return;
  }
  const { type, allowed_tools: allowed } = Object.fromEntries(members);
  if (type !== 'allowed_tools') {
    refuseHostedTool(choice, 'tool_choice');
    return;
  }
  const { tools, mode: _mode, ...others } = Object.fromEntries(listMembers(allowed));
  if (members.length !== 2 || Object.keys(others).length > 0 || !Array.isArray(tools))
    throw fieldNotAllowed('tool_choice');
  for (const tool of tools) refuseHostedTool(tool, 'tool_choice');
}

function refuseNumberAbove(value: unknown, field: string, max: number): void {
  if (value === undefined || value === null) return;
  if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > max)
    throw wrongFieldType(field, `a whole number from 1 to ${max} where the system pays`);
}

function toArray(value: unknown, field: string): unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw wrongFieldType(field, 'an array');
  return value;
}

/** The members of an object; an empty list for any other value. */
function listMembers(value: unknown): [string, unknown][] {
  return isObject(value) ? Object.entries(value) : [];
}

/** Members that hold media, in the spellings of several vendors: `image_url`, `imageUrl`, `input_image`, `videos`. */
const MEDIA_MEMBER = /^(input_)?(image|video|audio|file|document|media|source)s?(_?(ur[il]|data)s?)?$/;
/** Members whose text is an address, whatever it looks like. */
const ADDRESS_MEMBER = /ur[il]s?$|^(src|href)$/;
/** No member that an upstream reads has a longer name. */
const MAX_NAME_LENGTH = 64;
/**
 * Content parts that the protocol documents, that contain their content and that are billed as tokens. A `file` is none:
 * routers read each PDF, also one at an address, with a tool that costs per page.
 */
const INLINE_PARTS: ReadonlySet<unknown> = new Set(['text', 'image_url', 'input_audio', 'refusal']);
/** The lifetime of a cache that upstreams use by default. */
const DEFAULT_CACHE_TTL = '5m';
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
interface ValuePosition {
  /** The member that holds the value; undefined for a field of the body. */
  parent: ValuePosition | undefined;
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
 * - Media are data of images or audio, or at public https. The upstream can be the operator's own, in whose network a user
 *   must not read; and documents start a tool that costs.
 * - Content parts have a type of the protocol whose content is in the part, and none starts a tool that costs.
 * - A cache has its default lifetime.
 * - A schema refers only to itself, since an upstream may fetch what it refers to.
 * @returns the number of members of all objects.
 * @throws AppError `field_not_allowed`, `validation_failed` naming the member.
 */
function walkBody(body: Readonly<Record<string, unknown>>): number {
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
    const isReference =
      name.startsWith('$') && SCHEMA_REFERENCES.has(foldName(name.slice(0, MAX_NAME_LENGTH)));
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
      const isContent = position.kind === 'message' && rules.folded === 'content';
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
    if (position.kind === 'part' && (typeCount !== 1 || !INLINE_PARTS.has(type)))
      throw fieldNotAllowed(toPath(position, 'type'));
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

/**
 * Writing to a cache for an hour costs twice the input. For the default lifetime it costs at most 1.25 times the input,
 * so `cache_control` itself is passed: clients mark parts and tools with it for every model.
 */
function extendsCache(position: ValuePosition, name: string, value: unknown): boolean {
  if (value === null || value === DEFAULT_CACHE_TTL || foldName(name.slice(0, MAX_NAME_LENGTH)) !== 'ttl')
    return false;
  return foldName(position.name.slice(0, MAX_NAME_LENGTH)) === 'cache_control';
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
    const folded = foldName(name.slice(0, MAX_NAME_LENGTH));
    const rules = { folded, isMedia: MEDIA_MEMBER.test(folded), isAddress: ADDRESS_MEMBER.test(folded) };
    if (known.size < MAX_KNOWN_NAMES) known.set(name, rules);
    return rules;
  };
}
