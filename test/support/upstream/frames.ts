import { messages } from './message-frames.ts';
import type { RecordedRequest } from './recorded-request.ts';
import { fieldOf, textOf } from './request-fields.ts';

export interface CompletionOptions {
  /** Text of the response; `Hello from the upstream.` by default. */
  text?: string;
  /** Model named in the response; the request's by default. */
  model?: string;
  toolCalls?: readonly { name: string; arguments: string }[];
  usage?: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
  finishReason?: string;
}

export const DONE = 'data: [DONE]\n\n';
const USAGE = { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 };
const CREATED = 1_750_000_000;

/** One server-sent event. */
export function frame(data: unknown): string {
  return `data: ${JSON.stringify(data)}\n\n`;
}

/** Error members, with the types of OpenAI. */
export interface ErrorMembers extends Record<string, unknown> {
  message: string;
  type: string;
}

/** What a server of one protocol sends. */
export interface ProtocolFrames {
  /** The last event of a stream. */
  end: string;
  /** A response that is not streamed. */
  body(request: RecordedRequest, options: CompletionOptions): Record<string, unknown>;
  /** All events of a stream but the last one. */
  frames(request: RecordedRequest, options: CompletionOptions): string[];
  /** An event that a stream can have any number of times. */
  repeatable(request: RecordedRequest, text: string): string;
  errorBody(error: ErrorMembers): object;
  errorFrame(error: object): string;
}

/** OpenAI's chat completions. */
const chat: ProtocolFrames = {
  end: DONE,
  body: completionBody,
  frames: completionFrames,
  repeatable: (request, text) => completionFrames(request, { text })[1] ?? '',
  errorBody: (error) => ({ error }),
  errorFrame: (error) => frame({ error }),
};

/** The protocol in which a request is sent, by its path. */
export function protocolOf({ path }: RecordedRequest): ProtocolFrames {
  return /\/messages(\/|\?|$)/.test(path) ? messages : chat;
}

/** All events of a stream. */
export function wholeFrames(request: RecordedRequest, options: CompletionOptions = {}): string[] {
  const protocol = protocolOf(request);
  return [...protocol.frames(request, options), protocol.end];
}

function completionBody(request: RecordedRequest, options: CompletionOptions = {}): Record<string, unknown> {
  const calls = options.toolCalls?.map((call, index) => toolCall(call, index));
  return {
    id: `chatcmpl-${request.index}`,
    object: 'chat.completion',
    created: CREATED,
    model: modelOf(request, options),
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: calls ? null : textOf(options),
          refusal: null,
          ...(calls ? { tool_calls: calls } : {}),
        },
        logprobs: null,
        finish_reason: reasonOf(options),
      },
    ],
    usage: options.usage ?? USAGE,
  };
}

/** The frames of a streamed response without the final `[DONE]`: role, one per word, finish reason, requested usage. */
export function completionFrames(request: RecordedRequest, options: CompletionOptions = {}): string[] {
  const base = {
    id: `chatcmpl-${request.index}`,
    object: 'chat.completion.chunk',
    created: CREATED,
    model: modelOf(request, options),
  };
  const chunk = (delta: object, reason: string | null = null): string =>
    frame({ ...base, choices: [{ index: 0, delta, logprobs: null, finish_reason: reason }] });
  const content = options.toolCalls
    ? options.toolCalls.flatMap((call, index) => toolDeltas(call, index))
    : (textOf(options).match(/\s*\S+/g) ?? []).map((word) => ({ content: word }));
  const wantsUsage = (streamOptions(request)?.['include_usage'] ?? false) === true;
  return [
    chunk({ role: 'assistant', content: options.toolCalls ? null : '', refusal: null }),
    ...content.map((delta) => chunk(delta)),
    chunk({}, reasonOf(options)),
    ...(wantsUsage ? [frame({ ...base, choices: [], usage: options.usage ?? USAGE })] : []),
  ];
}

/** True when the request asks for a stream; a body that is not JSON does not. */
export function wantsStream(request: RecordedRequest): boolean {
  return fieldOf(request, 'stream') === true;
}

function toolCall(call: { name: string; arguments: string }, index: number): object {
  return { id: `call_${index}`, type: 'function', function: call };
}

function toolDeltas(call: { name: string; arguments: string }, index: number): object[] {
  const opening = { index, ...toolCall({ name: call.name, arguments: '' }, index) };
  const parts = call.arguments.match(/[\s\S]{1,5}/gu) ?? [];
  return [opening, ...parts.map((part) => ({ index, function: { arguments: part } }))].map((one) => ({
    tool_calls: [one],
  }));
}

function reasonOf(options: CompletionOptions): string {
  return options.finishReason ?? (options.toolCalls ? 'tool_calls' : 'stop');
}

function modelOf(request: RecordedRequest, options: CompletionOptions): string {
  const asked = fieldOf(request, 'model');
  return options.model ?? (typeof asked === 'string' ? asked : 'upstream-model');
}

function streamOptions(request: RecordedRequest): Record<string, unknown> | undefined {
  return fieldOf(request, 'stream_options') as Record<string, unknown> | undefined;
}
