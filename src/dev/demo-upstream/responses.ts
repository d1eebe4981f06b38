import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { StreamFrame } from './completion.ts';
import { DemoError, readDemoRequest, type DemoChatRequest, type DemoTool } from './protocol.ts';
import { createReply, type DemoChoice, type DemoReply } from './reply.ts';
import { toResponseFrames, type DemoOutputItem } from './response-frames.ts';
import { createDemoResponseStore } from './stored-responses.ts';

/** The part of OpenAI's Responses that the demo implements. Objects are loose, see `protocol.ts`. */
const Part = z.looseObject({ type: z.string(), text: z.string().optional() });
const Text = z.union([z.string(), z.array(Part)]);
const Item = z.looseObject({
  type: z.string().optional(),
  id: z.string().optional(),
  role: z.enum(['system', 'developer', 'user', 'assistant']).optional(),
  content: Text.nullish(),
  call_id: z.string().optional(),
  output: Text.optional(),
});
type Item = z.output<typeof Item>;

const DemoResponsesRequest = z.looseObject({
  model: z.string().min(1),
  input: z.union([z.string(), z.array(Item)]),
  instructions: z.string().nullish(),
  previous_response_id: z.string().nullish(),
  stream: z.boolean().nullish(),
  store: z.boolean().nullish(),
  background: z.boolean().nullish(),
  max_output_tokens: z.int().min(16).nullish(),
  tools: z.array(z.looseObject({ type: z.string(), name: z.string().optional() })).nullish(),
  tool_choice: z
    .union([z.string(), z.looseObject({ type: z.string(), name: z.string().optional() })])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
});
type DemoResponsesRequest = z.output<typeof DemoResponsesRequest>;

/** What is sent: a body, or the events of a stream. */
export type DemoResult = { body: object } | { frames: Iterable<StreamFrame> };

export interface DemoResponses {
  /** @throws DemoError 400. */
  create(body: Buffer, key: string): DemoResult;
  /**
   * Reads, deletes or cancels a stored response, or lists its input.
   * @returns undefined for a path or method of another call.
   * @throws DemoError 400, 404.
   */
  serveStored(method: string, url: URL, key: string): DemoResult | undefined;
}

const STORED_PATH = /^\/v1\/responses\/([\w-]+)(\/cancel|\/input_items)?$/;

export function createDemoResponses(): DemoResponses {
  const store = createDemoResponseStore();

  function getHistory(key: string, id: string | null | undefined): readonly object[] {
    if (id === null || id === undefined) return [];
    const previous = store.find(key, id);
    if (previous === undefined)
      throw new DemoError(400, `Previous response with id '${id}' not found.`, {
        param: 'previous_response_id',
        code: 'previous_response_not_found',
      });
    return [...previous.history, ...(previous.response['output'] as object[])];
  }

  return {
    create(body, key) {
      const request = readDemoRequest(DemoResponsesRequest, body);
      const input = toItems(request.input);
      const history = [...getHistory(key, request.previous_response_id), ...input];
      const reply = createReply(toChatRequest(request, history as Item[]), key);
      const response = toResponse(request, reply);
      const isBackground = request.background === true;
      if (request.store !== false) store.add(key, { response, history, input, isBackground });
      return request.stream === true ? { frames: toResponseFrames(response, 0) } : { body: response };
    },
    serveStored(method, url, key) {
      const [, id = '', suffix = ''] = STORED_PATH.exec(url.pathname) ?? [];
      const call = id === '' ? '' : `${method} ${suffix}`;
      if (call === 'GET ') {
        const { response } = store.get(key, id);
        const after = Number(url.searchParams.get('starting_after') ?? -1);
        const isStreaming = url.searchParams.get('stream') === 'true';
        return isStreaming ? { frames: toResponseFrames(response, after + 1) } : { body: response };
      }
      if (call === 'DELETE ') {
        store.get(key, id);
        store.delete(key, id);
        return { body: { id, object: 'response', deleted: true } };
      }
      if (call === 'POST /cancel') {
        const { response, isBackground } = store.get(key, id);
        if (!isBackground) throw new DemoError(400, 'Cannot cancel a synchronous response.');
        return { body: response };
      }
      return call === 'GET /input_items' ? { body: toItemList(store.get(key, id).input, url) } : undefined;
    },
  };
}

function toItems(input: DemoResponsesRequest['input']): (Item & { id: string })[] {
  const items = typeof input === 'string' ? [{ role: 'user' as const, content: input }] : input;
  return items.map((item) => ({ type: 'message', ...item, id: item.id ?? createId('msg') }));
}

function toItemList(items: readonly (object & { id: string })[], { searchParams }: URL): object {
  const ordered = searchParams.get('order') === 'asc' ? [...items] : [...items].reverse();
  const start = ordered.findIndex(({ id }) => id === searchParams.get('after')) + 1;
  const limit = Number(searchParams.get('limit') ?? 20);
  const data = ordered.slice(start, start + limit);
  const has_more = start + limit < ordered.length;
  return { object: 'list', data, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null, has_more };
}

/** The conversation as chat completions have it, which the demo's replies are made from. */
function toChatRequest(request: DemoResponsesRequest, items: readonly Item[]): DemoChatRequest {
  const { model, instructions, max_output_tokens, parallel_tool_calls } = request;
  const tools = (request.tools ?? []).filter((tool) => tool.type === 'function' && tool.name !== undefined);
  const messages = items.flatMap((item): DemoChatRequest['messages'] => {
    if (item.type === 'function_call_output') return [{ role: 'tool', content: toText(item.output) }];
    return item.role === undefined ? [] : [{ role: item.role, content: toText(item.content) }];
  });
  const system = instructions ? [{ role: 'system' as const, content: instructions }] : [];
  return {
    ...{ model, parallel_tool_calls },
    messages: [...system, ...messages],
    max_completion_tokens: max_output_tokens,
    tools: tools.map((tool) => ({ type: 'function', function: tool }) as unknown as DemoTool),
    tool_choice: toChatChoice(request.tool_choice, tools.length),
  };
}

function toChatChoice(
  choice: DemoResponsesRequest['tool_choice'],
  toolCount: number,
): DemoChatRequest['tool_choice'] {
  if (toolCount === 0) return 'none';
  if (choice === 'required' || choice === 'none') return choice;
  const name = typeof choice === 'object' && choice?.type === 'function' ? choice.name : undefined;
  return name === undefined ? 'auto' : { type: 'function', function: { name } };
}

function toText(content: z.output<typeof Text> | null | undefined): string {
  if (typeof content === 'string') return content;
  return (content ?? []).map((part) => part.text ?? '').join('');
}

function toResponse(request: DemoResponsesRequest, reply: DemoReply) {
  const [choice] = reply.choices;
  if (choice === undefined) throw new Error('a reply without a choice');
  const isCut = choice.finishReason === 'length';
  const { prompt_tokens: input_tokens, completion_tokens: output_tokens, total_tokens } = reply.usage;
  return {
    id: createId('resp'),
    object: 'response',
    created_at: Math.floor(Date.now() / 1000),
    status: isCut ? 'incomplete' : 'completed',
    background: request.background ?? false,
    error: null,
    incomplete_details: isCut ? { reason: 'max_output_tokens' } : null,
    instructions: request.instructions ?? null,
    max_output_tokens: request.max_output_tokens ?? null,
    metadata: {},
    model: request.model,
    output: toOutput(choice, isCut ? 'incomplete' : 'completed'),
    parallel_tool_calls: request.parallel_tool_calls ?? true,
    previous_response_id: request.previous_response_id ?? null,
    reasoning: { effort: null, summary: null },
    store: request.store ?? true,
    temperature: 1,
    text: { format: { type: 'text' } },
    tool_choice: request.tool_choice ?? 'auto',
    tools: request.tools ?? [],
    top_p: 1,
    truncation: 'disabled',
    usage: {
      input_tokens,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens,
    },
    user: null,
  };
}

function toOutput({ text, toolCalls }: DemoChoice, status: string): DemoOutputItem[] {
  const calls = toolCalls.map((call) => ({
    ...{ type: 'function_call' as const, id: createId('fc'), call_id: call.id, status },
    ...{ name: call.name, arguments: call.arguments },
  }));
  if (text === null) return calls;
  const content = [{ type: 'output_text' as const, text, annotations: [] as [] }];
  return [{ type: 'message', id: createId('msg'), status, role: 'assistant', content }, ...calls];
}

function createId(prefix: string): string {
  return `${prefix}_demo${randomBytes(12).toString('hex')}`;
}
