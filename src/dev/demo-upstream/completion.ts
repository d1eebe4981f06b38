import { randomBytes } from 'node:crypto';
import type { DemoReply, DemoChoice } from './reply.ts';

/** Members of the response and of each chunk. */
export interface Envelope {
  id: string;
  /** Epoch seconds. */
  created: number;
  model: string;
  system_fingerprint: string;
}

export function createEnvelope(model: string): Envelope {
  return {
    id: `chatcmpl-demo${randomBytes(12).toString('hex')}`,
    created: Math.floor(Date.now() / 1000),
    model,
    system_fingerprint: 'fp_demo',
  };
}

/** The body of a response that is not streamed. */
export function toCompletion(envelope: Envelope, reply: DemoReply): object {
  return {
    ...envelope,
    object: 'chat.completion',
    choices: reply.choices.map((choice, index) => ({
      index,
      message: {
        role: 'assistant',
        content: choice.text,
        refusal: null,
        ...(choice.toolCalls.length > 0 ? { tool_calls: choice.toolCalls.map(toWireToolCall) } : {}),
      },
      logprobs: null,
      finish_reason: choice.finishReason,
    })),
    usage: reply.usage,
  };
}

function toWireToolCall(call: DemoChoice['toolCalls'][number]): object {
  return { id: call.id, type: 'function', function: { name: call.name, arguments: call.arguments } };
}

/** A server-sent event of a stream. Words are delayed. */
export interface StreamFrame {
  text: string;
  isWord: boolean;
}

/** The events of a streamed response, in order. */
export function* toChatFrames(
  envelope: Envelope,
  reply: DemoReply,
  includeUsage: boolean,
): Generator<StreamFrame> {
  for (const { data, isWord } of toChunks(envelope, reply, includeUsage))
    yield { text: `data: ${JSON.stringify(data)}\n\n`, isWord };
  yield { text: 'data: [DONE]\n\n', isWord: false };
}

interface CompletionChunk {
  data: object;
  isWord: boolean;
}

/**
 * The chunks of a streamed response, in order. With `includeUsage` each chunk has `usage: null` and a last chunk
 * without choices reports the usage (OpenAI's API reference, `stream_options.include_usage`).
 */
function* toChunks(envelope: Envelope, reply: DemoReply, includeUsage: boolean): Generator<CompletionChunk> {
  const base = {
    ...envelope,
    object: 'chat.completion.chunk',
    ...(includeUsage ? { usage: null } : {}),
  };
  for (const [index, choice] of reply.choices.entries()) {
    for (const { delta, isWord } of toDeltas(choice)) {
      yield { data: { ...base, choices: [{ index, delta, logprobs: null, finish_reason: null }] }, isWord };
    }
    const end = { index, delta: {}, logprobs: null, finish_reason: choice.finishReason };
    yield { data: { ...base, choices: [end] }, isWord: false };
  }
  if (includeUsage) yield { data: { ...base, choices: [], usage: reply.usage }, isWord: false };
}

function* toDeltas(choice: DemoChoice): Generator<{ delta: object; isWord: boolean }> {
  const content = choice.text === null ? null : '';
  yield { delta: { role: 'assistant', content, refusal: null }, isWord: false };
  for (const word of choice.text?.match(/\s*\S+/g) ?? []) yield { delta: { content: word }, isWord: true };
  for (const [index, call] of choice.toolCalls.entries()) {
    const opening = { index, id: call.id, type: 'function', function: { name: call.name, arguments: '' } };
    yield { delta: { tool_calls: [opening] }, isWord: false };
    for (const part of call.arguments.match(/[\s\S]{1,6}/gu) ?? []) {
      yield { delta: { tool_calls: [{ index, function: { arguments: part } }] }, isWord: true };
    }
  }
}
