import { isPublicHttpsAddress } from '../../../lib/net/public-address.ts';
import { isObject } from '../../../providers/provider.ts';
import { fieldNotAllowed, wrongFieldType } from '../../admission/request-body.ts';
import { createSharedPayerMediaCheck } from '../../admission/shared-payer-media.ts';
import { checkTools } from './shared-payer-tools.ts';
import { toArray } from '../../admission/shared-payer-values.ts';
import { checkSchema, countMembers, hasExtendedCache, listObjectMembers } from './shared-payer-values.ts';

/** Fields that are counted, and that shape this response only. They use no stored objects and no hosted tools. */
export const COUNTED_FIELDS: ReadonlySet<string> = new Set([
  ...['cache_control', 'messages', 'model', 'output_config', 'output_format', 'system', 'thinking'],
  ...['tool_choice', 'tools'],
]);

export const MESSAGES_SHARED_PAYER_FIELDS: ReadonlySet<string> = new Set([
  ...COUNTED_FIELDS,
  ...['max_tokens', 'stop_sequences', 'stream', 'temperature', 'top_k', 'top_p'],
]);

/**
 * Fields that SDKs and agents send by themselves. Without them the model answers as it does by default. A container, MCP
 * servers, a speed and a place of inference are not left out: they cost, or the answer would be another one than asked for.
 */
export const MESSAGES_DROPPED_FIELDS: ReadonlyMap<string, (value: unknown) => boolean> = new Map<
  string,
  (value: unknown) => boolean
>([
  ['metadata', () => true],
  // Removes parts of the prompt; its summaries are further calls of a model.
  ['context_management', () => true],
  // Another tier has another price.
  ['service_tier', (value) => [null, 'auto', 'standard_only'].includes(value as string | null)],
  ['container', (value) => value === null],
  ['mcp_servers', (value) => value === null || (Array.isArray(value) && value.length === 0)],
  ['speed', (value) => value === null || value === 'standard'],
]);

const MAX_OUTPUT_TOKENS = 128_000;

/**
 * Checks all values that can cost or reach more than this response:
 * - Content has types of blocks, and members of them, whose content is in the request or at public https. Ids of files
 *   belong to the account, not to the user.
 * - Tools run at the client, not at the provider.
 * - A cache has its default lifetime, and output its limit.
 * - A schema refers only to itself, since an upstream may fetch what it refers to.
 * @returns the number of members of all objects.
 * @throws AppError `field_not_allowed`, `validation_failed` naming the member.
 */
export function checkMessagesSharedPayerValues(body: Readonly<Record<string, unknown>>): number {
  const { max_tokens: maxTokens, thinking, system, messages, tools, tool_choice: toolChoice } = body;
  refuseLimitAbove(maxTokens, 'max_tokens');
  if (isObject(thinking)) refuseLimitAbove(thinking['budget_tokens'], 'thinking.budget_tokens');
  if (hasExtendedCache(body)) throw fieldNotAllowed('cache_control.ttl');
  const check = createContentCheck();
  if (system !== undefined) check(system, 'system', SYSTEM_BLOCKS);
  for (const message of toArray(messages, 'messages')) {
    const { role: _role, content, ...others } = Object.fromEntries(listObjectMembers(message, 'messages'));
    refuseOthers(others, 'messages');
    check(content, 'messages.content', BLOCKS);
  }
  checkTools(tools, toolChoice);
  for (const field of ['output_config', 'output_format']) checkSchema(body[field], field);
  return countMembers(body);
}

function refuseLimitAbove(value: unknown, field: string): void {
  if (value === undefined || value === null) return;
  if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > MAX_OUTPUT_TOKENS)
    throw wrongFieldType(field, `a whole number from 1 to ${MAX_OUTPUT_TOKENS} where the system pays`);
}

function refuseOthers(others: Readonly<Record<string, unknown>>, path: string): void {
  const [name] = Object.keys(others);
  if (name !== undefined) throw fieldNotAllowed(`${path}.${name}`);
}

type BlockMembers = ReadonlyMap<unknown, ReadonlySet<string>>;

const toBlocks = (blocks: Readonly<Record<string, readonly string[]>>): BlockMembers =>
  new Map(
    Object.entries(blocks).map(([type, members]) => [type, new Set(['type', 'cache_control', ...members])]),
  );

const SYSTEM_BLOCKS = toBlocks({ text: ['text', 'citations'] });
/** Of a document, a search result and a result of a tool. */
const INNER_BLOCKS = toBlocks({
  text: ['text', 'citations'],
  image: ['source'],
  document: ['source', 'citations', 'context', 'title'],
  search_result: ['source', 'title', 'content', 'citations'],
});
/**
 * The blocks of messages. Those of hosted tools (`server_tool_use`, `mcp_tool_use`, `container_upload` and their results)
 * are absent. A member that is none of the protocol is refused, since it could be read as a reference.
 */
const BLOCKS: BlockMembers = new Map([
  ...INNER_BLOCKS,
  ...toBlocks({
    tool_use: ['id', 'name', 'input', 'caller'],
    tool_result: ['tool_use_id', 'content', 'is_error'],
    thinking: ['thinking', 'signature'],
    redacted_thinking: ['data'],
  }),
]);

type CheckContent = (content: unknown, path: string, blocks: BlockMembers) => void;

/** @returns a check of a text or of an array of blocks. It counts the media of one body. */
function createContentCheck(): CheckContent {
  const isSharedPayerMedia = createSharedPayerMediaCheck();

  function checkContent(content: unknown, path: string, blocks: BlockMembers): void {
    if (typeof content === 'string') return;
    if (!Array.isArray(content)) throw wrongFieldType(path, 'a string or an array');
    for (const block of content) checkBlock(block, path, blocks);
  }

  function checkBlock(value: unknown, path: string, blocks: BlockMembers): void {
    const members = listObjectMembers(value, path);
    const block = Object.fromEntries(members);
    const known = blocks.get(block['type']);
    if (known === undefined) throw fieldNotAllowed(`${path}.type`);
    for (const [name] of members) if (!known.has(name)) throw fieldNotAllowed(`${path}.${name}`);
    if (hasExtendedCache(block)) throw fieldNotAllowed(`${path}.cache_control.ttl`);
    // The source of a search result is the name of its origin, which is not fetched.
    if (block['type'] === 'image') checkImage(block['source'], `${path}.source`);
    if (block['type'] === 'document') checkDocument(block['source'], `${path}.source`);
    if (block['content'] !== undefined) checkContent(block['content'], `${path}.content`, INNER_BLOCKS);
  }

  function checkImage(value: unknown, path: string): void {
    const {
      type,
      media_type: mediaType,
      data,
      url,
      ...others
    } = Object.fromEntries(listObjectMembers(value, path));
    refuseOthers(others, path);
    const isImage =
      type === 'base64'
        ? IMAGE_TYPE.test(String(mediaType)) && url === undefined
        : type === 'url' && data === undefined;
    const text = type === 'url' ? url : data;
    if (!isImage || typeof text !== 'string' || !isSharedPayerMedia(text, type === 'url'))
      throw fieldNotAllowed(path);
  }

  function checkDocument(value: unknown, path: string): void {
    const {
      type,
      media_type: _mediaType,
      data,
      url,
      content,
      ...others
    } = Object.fromEntries(listObjectMembers(value, path));
    refuseOthers(others, path);
    const isAllowed =
      (type === 'url' &&
        typeof url === 'string' &&
        url.length <= MAX_ADDRESS_LENGTH &&
        isPublicHttpsAddress(url)) ||
      ((type === 'base64' || type === 'text') && typeof data === 'string' && url === undefined) ||
      (type === 'content' && url === undefined && data === undefined);
    if (!isAllowed) throw fieldNotAllowed(path);
    if (content !== undefined) checkContent(content, `${path}.content`, INNER_BLOCKS);
  }

  return checkContent;
}

const IMAGE_TYPE = /^image\/(png|jpe?g|gif|webp)$/;
const MAX_ADDRESS_LENGTH = 8_192;
