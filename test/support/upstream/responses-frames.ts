import type { Answer, HeaderLines } from './response-writer.ts';
import { answer } from './answers.ts';
import type { RecordedRequest } from './recorded-request.ts';

export interface ResponseOptions {
  /** `resp_` and the number of the request by default. */
  id?: string;
  /** Text of the response; `Hello from the upstream.` by default. */
  text?: string;
  toolCalls?: readonly { name: string; arguments: string }[];
  status?: 'completed' | 'incomplete' | 'failed' | 'queued' | 'in_progress' | 'cancelled';
  headers?: HeaderLines;
}

const USAGE = {
  input_tokens: 11,
  input_tokens_details: { cached_tokens: 3 },
  output_tokens: 7,
  output_tokens_details: { reasoning_tokens: 2 },
  total_tokens: 18,
};

/** One typed event of OpenAI's Responses. */
export function typedFrame(type: string, members: object): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...members })}\n\n`;
}

export function responseBody(request: RecordedRequest, options: ResponseOptions = {}) {
  const { status = 'completed', text = 'Hello from the upstream.' } = options;
  const calls = (options.toolCalls ?? []).map((call, index) => ({
    ...{ type: 'function_call', id: `fc_${index}`, call_id: `call_${index}`, status: 'completed' },
    ...call,
  }));
  const message = {
    ...{ type: 'message', id: 'msg_0', status: 'completed', role: 'assistant' },
    content: [{ type: 'output_text', text, annotations: [] }],
  };
  return {
    id: options.id ?? `resp_${request.index}`,
    object: 'response',
    created_at: 1_750_000_000,
    status,
    error: status === 'failed' ? { code: 'server_error', message: 'It failed.' } : null,
    incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
    model: 'the-model',
    output: calls.length > 0 ? calls : [message],
    usage: USAGE,
  };
}

/** The events of a streamed response, the last one included. */
export function responseFrames(request: RecordedRequest, options: ResponseOptions = {}): string[] {
  const whole = responseBody(request, options);
  const begun = { ...whole, status: 'in_progress', output: [], usage: null };
  const events: [string, object][] = [
    ['response.created', { response: begun }],
    ...whole.output.flatMap((item, index) => toItemEvents(item as OutputItem, index)),
    [`response.${whole.status}`, { response: whole }],
  ];
  return events.map(([type, members], index) => typedFrame(type, { sequence_number: index, ...members }));
}

interface OutputItem {
  type: string;
  id: string;
  content?: { text: string }[];
  arguments?: string;
}

function toItemEvents(item: OutputItem, index: number): [string, object][] {
  const at = { item_id: item.id, output_index: index };
  const text = item.content?.[0]?.text;
  const part = { type: 'output_text', text: text ?? '', annotations: [] };
  const inner: [string, object][] =
    text === undefined
      ? [
          ['response.function_call_arguments.delta', { ...at, delta: item.arguments }],
          ['response.function_call_arguments.done', { ...at, arguments: item.arguments }],
        ]
      : [
          ['response.content_part.added', { ...at, content_index: 0, part: { ...part, text: '' } }],
          ...(text.match(/\s*\S+/g) ?? []).map((delta): [string, object] => [
            'response.output_text.delta',
            { ...at, content_index: 0, delta, logprobs: [] },
          ]),
          ['response.output_text.done', { ...at, content_index: 0, text, logprobs: [] }],
          ['response.content_part.done', { ...at, content_index: 0, part }],
        ];
  const added = text === undefined ? { ...item, arguments: '' } : { ...item, content: [] };
  return [
    ['response.output_item.added', { output_index: index, item: { ...added, status: 'in_progress' } }],
    ...inner,
    ['response.output_item.done', { output_index: index, item }],
  ];
}

/** A response, streamed when the request has `stream: true`. */
export function response(options: ResponseOptions = {}): Answer {
  return (writer) => {
    const { request } = writer;
    const { headers = {} } = options;
    const isStreamed = request.body.length > 0 && request.json()['stream'] === true;
    const next = isStreamed
      ? answer.steps(responseFrames(request, options), { headers })
      : answer.reply({ headers, body: responseBody(request, options) });
    return next(writer);
  };
}
