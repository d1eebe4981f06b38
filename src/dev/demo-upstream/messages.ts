import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { StreamFrame } from './completion.ts';
import { parseDemoBody, DemoError, DemoTool, type DemoChatRequest, type DemoMessage } from './protocol.ts';
import type { DemoReply } from './reply.ts';

/**
 * The part of Anthropic's Messages protocol that the demo implements. A request is converted to a chat request, whose
 * reply becomes a message. Unknown fields and blocks are accepted and ignored.
 */
const Block = z.looseObject({ type: z.string(), text: z.string().optional() });
const Content = z.union([z.string(), z.array(Block)]);
const InnerContent = z
  .union([z.string(), z.array(Block)])
  .optional()
  .catch(undefined);

const Tool = z.looseObject({
  type: z.string().nullish(),
  name: DemoTool.shape.function.shape.name,
  input_schema: z.record(z.string(), z.unknown()).nullish(),
});
const ToolChoice = z.looseObject({
  type: z.enum(['auto', 'any', 'tool', 'none']),
  name: z.string().optional(),
  disable_parallel_tool_use: z.boolean().optional(),
});

const CountRequest = z.looseObject({
  model: z.string().min(1),
  messages: z.array(z.looseObject({ role: z.enum(['user', 'assistant']), content: Content })).min(1),
  system: Content.optional(),
  tools: z.array(Tool).max(128).optional(),
  tool_choice: ToolChoice.optional(),
});
const MessagesRequest = CountRequest.extend({
  max_tokens: z.int().min(1),
  stream: z.boolean().optional(),
  stop_sequences: z.array(z.string()).max(4).optional(),
  temperature: z.number().min(0).max(1).optional(),
});

/** A request of Anthropic's protocol, as the demo answers it. */
export interface DemoMessagesRequest {
  chat: DemoChatRequest;
  isStreaming: boolean;
}

/** @throws DemoError 400 that names the first invalid field. */
export function readDemoMessagesRequest(body: Buffer): DemoMessagesRequest {
  const request = parseRequest(MessagesRequest, body);
  const chat = toChatRequest(request);
  return {
    chat: { ...chat, max_tokens: request.max_tokens, stop: request.stop_sequences },
    isStreaming: request.stream === true,
  };
}

/** A request that asks for the number of its tokens alone. @throws DemoError 400 that names the first invalid field. */
export function readDemoCountRequest(body: Buffer): DemoChatRequest {
  return toChatRequest(parseRequest(CountRequest, body));
}

function parseRequest<Request>(schema: z.ZodType<Request>, body: Buffer): Request {
  const result = schema.safeParse(parseDemoBody(body));
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const isMissing = issue?.code === 'invalid_type' && issue.message.endsWith('received undefined');
  const message = isMissing ? 'Field required' : (issue?.message ?? 'Invalid');
  throw new DemoError(400, `${issue?.path.join('.') ?? 'body'}: ${message}`);
}

function toChatRequest(request: z.output<typeof CountRequest>): DemoChatRequest {
  const { system, tools, tool_choice: choice } = request;
  const systemMessages: DemoMessage[] = system === undefined ? [] : [{ role: 'system', content: system }];
  return {
    model: request.model,
    messages: [...systemMessages, ...request.messages.flatMap(toChatMessages)],
    tools: tools?.map(({ name, input_schema: parameters }) => ({
      type: 'function',
      function: { name, parameters },
    })),
    tool_choice: choice && toChatChoice(choice),
    parallel_tool_calls: choice?.disable_parallel_tool_use !== true,
  };
}

/** Results of tools are messages of their own in a chat. */
function toChatMessages({ role, content }: z.output<typeof CountRequest>['messages'][number]): DemoMessage[] {
  if (typeof content === 'string') return [{ role, content }];
  const results = content.filter(({ type }) => type === 'tool_result');
  const others = content.filter(({ type }) => type !== 'tool_result');
  return [
    ...(others.length > 0 ? [{ role, content: others }] : []),
    ...results.map((result) => ({ role: 'tool' as const, content: InnerContent.parse(result['content']) })),
  ];
}

function toChatChoice({ type, name = '' }: z.output<typeof ToolChoice>): DemoChatRequest['tool_choice'] {
  if (type === 'tool') return { type: 'function', function: { name } };
  return type === 'any' ? 'required' : type;
}

const STOP_REASONS = { stop: 'end_turn', length: 'max_tokens', tool_calls: 'tool_use' } as const;

interface DemoResponseMessage {
  content: readonly Record<string, unknown>[];
  stop_reason: string;
  usage: { input_tokens: number; output_tokens: number };
}

/** The body of a response that is not streamed. */
export function toMessage(model: string, { choices, usage }: DemoReply): DemoResponseMessage {
  const [choice] = choices;
  const calls = choice?.toolCalls ?? [];
  const blocks = calls.map(({ id, name, arguments: input }) => ({
    type: 'tool_use',
    id: id.replace(/^call_/, 'toolu_'),
    name,
    input: JSON.parse(input) as unknown,
  }));
  const message = {
    id: `msg_demo${randomBytes(12).toString('hex')}`,
    type: 'message',
    role: 'assistant',
    model,
    content: blocks.length > 0 ? blocks : [{ type: 'text', text: choice?.text ?? '' }],
    stop_reason: STOP_REASONS[choice?.finishReason ?? 'stop'],
    stop_sequence: null,
    usage: { input_tokens: usage.prompt_tokens, output_tokens: usage.completion_tokens },
  };
  return message;
}

/** The events of a streamed response, in order. */
export function* toMessageFrames(message: DemoResponseMessage): Generator<StreamFrame> {
  const { content, stop_reason: reason, usage } = message;
  const start = { ...message, content: [], stop_reason: null, usage: { ...usage, output_tokens: 1 } };
  yield toFrame({ type: 'message_start', message: start });
  yield toFrame({ type: 'ping' });
  for (const [index, block] of content.entries()) {
    const empty = block['type'] === 'text' ? { ...block, text: '' } : { ...block, input: {} };
    yield toFrame({ type: 'content_block_start', index, content_block: empty });
    for (const delta of toDeltas(block)) yield toFrame({ type: 'content_block_delta', index, delta }, true);
    yield toFrame({ type: 'content_block_stop', index });
  }
  const { output_tokens } = usage;
  yield toFrame({
    type: 'message_delta',
    delta: { stop_reason: reason, stop_sequence: null },
    usage: { output_tokens },
  });
  yield toFrame({ type: 'message_stop' });
}

function toDeltas({ type, text, input }: Record<string, unknown>): object[] {
  if (type === 'text')
    return (String(text).match(/\s*\S+/g) ?? []).map((word) => ({ type: 'text_delta', text: word }));
  const parts = JSON.stringify(input).match(/[\s\S]{1,6}/gu) ?? [];
  return parts.map((part) => ({ type: 'input_json_delta', partial_json: part }));
}

function toFrame(data: { type: string } & Record<string, unknown>, isWord = false): StreamFrame {
  return { text: `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`, isWord };
}

const ERROR_TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  404: 'not_found_error',
  413: 'request_too_large',
};

/** The body of an error in Anthropic's shape. */
export function toMessagesError({ status, message }: DemoError): object {
  const type = ERROR_TYPES[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error');
  return { type: 'error', error: { type, message } };
}
