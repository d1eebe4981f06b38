import type { StreamFrame } from './completion.ts';

/** An item of a response: a message or the call of a function. */
export type DemoOutputItem = { id: string; status: string } & (
  | { type: 'message'; role: 'assistant'; content: { type: 'output_text'; text: string; annotations: [] }[] }
  | { type: 'function_call'; call_id: string; name: string; arguments: string }
);

interface ResponseEvent {
  type: string;
  members: object;
  isWord?: true;
}

/**
 * The typed events of a streamed response, in order. Each has the field `event` and a `sequence_number`; the last one
 * contains the whole response, and nothing follows it.
 * @param firstNumber earlier events are left out.
 */
export function* toResponseFrames(
  response: Readonly<Record<string, unknown>>,
  firstNumber: number,
): Generator<StreamFrame> {
  let number = 0;
  for (const { type, members, isWord = false } of toEvents(response)) {
    const data = JSON.stringify({ type, sequence_number: number, ...members });
    if (number >= firstNumber) yield { text: `event: ${type}\ndata: ${data}\n\n`, isWord };
    number += 1;
  }
}

function* toEvents(response: Readonly<Record<string, unknown>>): Generator<ResponseEvent> {
  const begun = { ...response, status: 'in_progress', output: [], usage: null, incomplete_details: null };
  yield { type: 'response.created', members: { response: begun } };
  yield { type: 'response.in_progress', members: { response: begun } };
  for (const [index, item] of (response['output'] as DemoOutputItem[]).entries()) {
    const open = { ...item, status: 'in_progress' };
    const empty = item.type === 'message' ? { ...open, content: [] } : { ...open, arguments: '' };
    yield { type: 'response.output_item.added', members: { output_index: index, item: empty } };
    yield* item.type === 'message' ? toTextEvents(item, index) : toArgumentEvents(item, index);
    yield { type: 'response.output_item.done', members: { output_index: index, item } };
  }
  yield { type: `response.${String(response['status'])}`, members: { response } };
}

function* toTextEvents(
  { id, content }: Extract<DemoOutputItem, { type: 'message' }>,
  index: number,
): Generator<ResponseEvent> {
  for (const [content_index, part] of content.entries()) {
    const at = { item_id: id, output_index: index, content_index };
    yield { type: 'response.content_part.added', members: { ...at, part: { ...part, text: '' } } };
    for (const delta of part.text.match(/\s*\S+/g) ?? [])
      yield { type: 'response.output_text.delta', members: { ...at, delta, logprobs: [] }, isWord: true };
    yield { type: 'response.output_text.done', members: { ...at, text: part.text, logprobs: [] } };
    yield { type: 'response.content_part.done', members: { ...at, part } };
  }
}

function* toArgumentEvents(
  call: Extract<DemoOutputItem, { type: 'function_call' }>,
  index: number,
): Generator<ResponseEvent> {
  const at = { item_id: call.id, output_index: index };
  for (const delta of call.arguments.match(/[\s\S]{1,6}/gu) ?? [])
    yield { type: 'response.function_call_arguments.delta', members: { ...at, delta }, isWord: true };
  const done = { ...at, name: call.name, arguments: call.arguments };
  yield { type: 'response.function_call_arguments.done', members: done };
}
