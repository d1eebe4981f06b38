import type { CompletionOptions, ProtocolFrames } from './frames.ts';
import { fieldOf, textOf } from './request-fields.ts';

const USAGE = { input_tokens: 11, output_tokens: 7 };

/** One event of Anthropic's protocol. */
export function messageFrame(data: { type: string } & Record<string, unknown>): string {
  return `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** Anthropic's Messages. */
export const messages: ProtocolFrames = {
  end: messageFrame({ type: 'message_stop' }),
  body: (request, options) => {
    const model = options.model ?? fieldOf(request, 'model') ?? 'upstream-model';
    const base = { id: `msg_${request.index}`, type: 'message', role: 'assistant', model };
    const stop = { stop_reason: reasonOf(options), stop_sequence: null };
    return { ...base, content: blocksOf(options), ...stop, usage: USAGE };
  },
  frames: (request, options) => {
    const whole = messages.body(request, options);
    const start = { ...whole, content: [], stop_reason: null, usage: { ...USAGE, output_tokens: 1 } };
    const blocks = blocksOf(options).flatMap((block, index) => [
      messageFrame({ type: 'content_block_start', index, content_block: { ...block, ...emptyOf(block) } }),
      ...deltasOf(block).map((delta) => messageFrame({ type: 'content_block_delta', index, delta })),
      messageFrame({ type: 'content_block_stop', index }),
    ]);
    const delta = { stop_reason: reasonOf(options), stop_sequence: null };
    return [
      messageFrame({ type: 'message_start', message: start }),
      ...blocks,
      messageFrame({ type: 'message_delta', delta, usage: { output_tokens: USAGE.output_tokens } }),
    ];
  },
  repeatable: (_request, text) =>
    messageFrame({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } }),
  errorBody: ({ message, type }) => ({ type: 'error', error: { type: ERROR_TYPES[type] ?? type, message } }),
  errorFrame: (error) => messageFrame({ type: 'error', error }),
};

/** Anthropic's names for the types of errors that the double knows by OpenAI's. */
const ERROR_TYPES: Readonly<Record<string, string>> = {
  server_error: 'api_error',
  requests: 'rate_limit_error',
  service_unavailable: 'overloaded_error',
};

type Block = { type: string } & Record<string, unknown>;

function blocksOf(options: CompletionOptions): Block[] {
  if (options.toolCalls === undefined) return [{ type: 'text', text: textOf(options) }];
  return options.toolCalls.map((call, index) => ({
    ...{ type: 'tool_use', id: `toolu_${index}`, name: call.name },
    input: JSON.parse(call.arguments) as unknown,
  }));
}

const emptyOf = ({ type }: Block): object => (type === 'text' ? { text: '' } : { input: {} });

function deltasOf({ type, text, input }: Block): object[] {
  if (type === 'text')
    return (String(text).match(/\s*\S+/g) ?? []).map((word) => ({ type: 'text_delta', text: word }));
  const parts = JSON.stringify(input).match(/[\s\S]{1,5}/gu) ?? [];
  return parts.map((part) => ({ type: 'input_json_delta', partial_json: part }));
}

function reasonOf(options: CompletionOptions): string {
  return options.finishReason ?? (options.toolCalls ? 'tool_use' : 'end_turn');
}
