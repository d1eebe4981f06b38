import { describe, expect, it } from '@jest/globals';
import { admitSharedPayerBody, parseRequestBody } from '../../../../src/gateway/admission/request-body.ts';
import { openAiResponses } from '../../../../src/gateway/surfaces/openai-responses/surface.ts';
import { isAppError } from '../../../../src/lib/errors.ts';
import { receivedBody } from '../../admission/received-body.ts';

const HELLO = { model: 'm', input: 'Hello' };
const parse = (body: object) => parseRequestBody(receivedBody(JSON.stringify(body)), openAiResponses);
const admit = (body: object) => admitSharedPayerBody(parse(body), openAiResponses, []);

/** The body as the upstream receives it. */
function sent(body: object): unknown {
  return JSON.parse(admit(body).body.withModel('m').toString());
}

/** Code and field of the refusal. */
function refusal(body: object): [string, string | undefined] | undefined {
  try {
    admit(body);
    return undefined;
  } catch (error) {
    if (!isAppError(error)) throw error;
    return [error.code, error.errors?.[0]?.path];
  }
}

const input = (...items: unknown[]) => ({ model: 'm', input: items });
const user = (...content: unknown[]) => input({ role: 'user', content });
const PNG = `data:image/png;base64,${Buffer.from('\x89PNG').toString('base64')}`;

describe('a shared payer', () => {
  it.each<[string, object]>([
    ['a text', HELLO],
    [
      'messages with and without a type',
      input(
        { role: 'user', content: 'a' },
        { type: 'message', role: 'developer', content: [{ type: 'input_text', text: 'a' }] },
      ),
    ],
    [
      'an answer of the model',
      input({
        type: 'message',
        id: 'msg_1',
        role: 'assistant',
        status: 'completed',
        content: [{ type: 'output_text', text: 'a', annotations: [], logprobs: [] }],
      }),
    ],
    [
      'calls of functions and their results',
      input(
        { type: 'function_call', id: 'fc_1', call_id: 'c', name: 'f', arguments: '{}' },
        { type: 'function_call_output', call_id: 'c', output: 'x' },
        { type: 'function_call_output', call_id: 'c', output: [{ type: 'input_text', text: 'x' }] },
      ),
    ],
    [
      'calls of custom tools and their results',
      input(
        { type: 'custom_tool_call', call_id: 'c', name: 'f', input: 'x' },
        { type: 'custom_tool_call_output', call_id: 'c', output: 'x' },
      ),
    ],
    [
      'encrypted reasoning',
      input({
        type: 'reasoning',
        id: 'rs_1',
        summary: [{ type: 'summary_text', text: 'a' }],
        encrypted_content: 'gAAAA',
      }),
    ],
    [
      'reasoning with its text',
      input({ type: 'reasoning', id: 'rs_1', summary: [], content: [{ type: 'reasoning_text', text: 'a' }] }),
    ],
    [
      'an image',
      user(
        { type: 'input_image', detail: 'auto', image_url: PNG },
        { type: 'input_image', image_url: 'https://example.org/a.png' },
      ),
    ],
    [
      'functions and custom tools',
      {
        ...HELLO,
        tools: [
          {
            type: 'function',
            name: 'f',
            parameters: { type: 'object', properties: { file_id: { type: 'string' } } },
            strict: true,
          },
          { type: 'custom', name: 'g', format: { type: 'grammar', syntax: 'lark', definition: 'x' } },
        ],
      },
    ],
    ['a choice of a function', { ...HELLO, tool_choice: { type: 'function', name: 'f' } }],
    [
      'a choice of several functions',
      {
        ...HELLO,
        tool_choice: { type: 'allowed_tools', mode: 'auto', tools: [{ type: 'function', name: 'f' }] },
      },
    ],
    [
      'all of these',
      {
        ...HELLO,
        instructions: 'x',
        include: ['reasoning.encrypted_content'],
        max_output_tokens: 16,
        parallel_tool_calls: true,
        reasoning: { effort: 'low', summary: 'auto' },
        safety_identifier: 'x',
        stream: true,
        stream_options: { include_obfuscation: false },
        temperature: 0,
        text: { format: { type: 'json_schema', name: 'n', schema: {} }, verbosity: 'low' },
        tool_choice: 'auto',
        top_logprobs: 1,
        top_p: 1,
        truncation: 'auto',
        user: 'x',
      },
    ],
  ])('passes %s', (_name, body) => {
    expect(sent(body)).toEqual({ store: false, ...body });
  });

  it.each<[string, unknown]>([
    ['metadata', { a: 'b' }],
    ['client_metadata', { a: 'b' }],
    ['prompt_cache_key', 'x'],
    ['prompt_cache_retention', '24h'],
    ['service_tier', 'auto'],
    ['background', false],
    ['background', null],
    ['previous_response_id', null],
    ['conversation', null],
    ['prompt', null],
  ])('leaves out %s: %j and names it', (field, value) => {
    const { body, dropped } = admit({ ...HELLO, [field]: value });
    expect(dropped).toEqual([field]);
    expect(JSON.parse(body.withModel('m').toString())).toEqual({ store: false, ...HELLO });
  });

  const HOSTED = [
    ...[
      'web_search',
      'web_search_preview',
      'file_search',
      'code_interpreter',
      'computer_use_preview',
      'computer',
    ],
    ...['mcp', 'image_generation', 'local_shell', 'shell', 'apply_patch', 'namespace', 'tool_search'],
  ];
  it.each(HOSTED)('refuses the hosted tool %s, and the choice of it', (type) => {
    expect(refusal({ ...HELLO, tools: [{ type: 'function', name: 'f' }, { type }] })).toEqual([
      'field_not_allowed',
      'tools',
    ]);
    expect(refusal({ ...HELLO, tool_choice: { type } })).toEqual(['field_not_allowed', 'tool_choice']);
    const choice = { type: 'allowed_tools', mode: 'auto', tools: [{ type }] };
    expect(refusal({ ...HELLO, tool_choice: choice })).toEqual(['field_not_allowed', 'tool_choice']);
  });

  const REFUSED: [string, unknown][] = [
    ['store', true],
    ['previous_response_id', 'resp_1'],
    ['conversation', 'conv_1'],
    ['conversation', { id: 'conv_1' }],
    ['prompt', { id: 'pmpt_1' }],
    ['background', true],
    ['service_tier', 'priority'],
    ['context_management', []],
    ['include', ['file_search_call.results']],
    ['include', ['web_search_call.action.sources']],
    ['include', ['code_interpreter_call.outputs']],
    ['include', ['computer_call_output.output.image_url']],
    ['include', ['reasoning.encrypted_content', 'x']],
    ['some_new_field', 1],
    ['api_base', 'https://example.org'],
  ];
  it.each(REFUSED)('refuses %s: %j', (field, value) => {
    expect(refusal({ ...HELLO, [field]: value })).toEqual(['field_not_allowed', field]);
  });

  it.each<[string, object, string]>([
    ['an item by its id', input({ type: 'item_reference', id: 'msg_1' }), 'input.type'],
    ['an item by its id alone', input({ id: 'msg_1' }), 'input.type'],
    ['a message without its content', input({ type: 'message', role: 'user', id: 'msg_1' }), 'input.type'],
    ['stored reasoning', input({ type: 'reasoning', id: 'rs_1', summary: [] }), 'input.id'],
    [
      'stored reasoning with empty content',
      input({ type: 'reasoning', id: 'rs_1', summary: [], encrypted_content: '', content: [] }),
      'input.id',
    ],
    ['a call of a hosted tool', input({ type: 'file_search_call', id: 'fs_1', queries: [] }), 'input.type'],
    [
      'a type in another spelling',
      input({ Type: 'item_reference', role: 'user', content: 'x' }),
      'input.type',
    ],
    ['a stored image', user({ type: 'input_image', file_id: 'file_1' }), 'input.content.file_id'],
    ['a stored file', user({ type: 'input_file', file_id: 'file_1' }), 'input.content.file_id'],
    ['a file', user({ type: 'input_file', file_data: 'x', filename: 'a.pdf' }), 'input.content.type'],
    [
      'a file at an address',
      user({ type: 'input_file', file_url: 'https://example.org/a.txt' }),
      'input.content.type',
    ],
    [
      'a file in the result of a function',
      input({ type: 'function_call_output', call_id: 'c', output: [{ type: 'input_file', file_id: 'f' }] }),
      'input.output.file_id',
    ],
    [
      'an image at a private address',
      user({ type: 'input_image', image_url: 'http://127.0.0.1/a.png' }),
      'input.content.image_url',
    ],
  ])('refuses %s', (_name, body, field) => {
    expect(refusal(body)).toEqual(['field_not_allowed', field]);
  });

  it.each<[string, object]>([
    ['input', { model: 'm', input: { role: 'user' } }],
    ['input', input('x')],
    ['instructions', { ...HELLO, instructions: [] }],
    ['max_output_tokens', { ...HELLO, max_output_tokens: 1_000_000 }],
  ])('refuses a wrong value of %s', (field, body) => {
    expect(refusal(body)).toEqual(['validation_failed', field]);
  });
});

describe('a response', () => {
  const at = { sequence_number: 1 };
  it.each<[string, unknown, boolean]>([
    ['a response', { id: 'r', object: 'response', output: [] }, true],
    ['a deleted response', { id: 'r', object: 'response', deleted: true }, true],
    ['input items', { object: 'list', data: [{ type: 'message' }] }, true],
    ['an event', { type: 'response.output_text.delta', ...at }, true],
    ['another list', { object: 'list', data: [{ id: 'a model' }] }, false],
    ['another object', { id: 'r', object: 'chat.completion' }, false],
    ['an array', [], false],
  ])('%s is recognized at every address', (_name, value, isResponse) => {
    expect([true, false].map((isPublic) => openAiResponses.isResponse(value, isPublic))).toEqual([
      isResponse,
      isResponse,
    ]);
  });

  it.each<[unknown]>([
    [{ object: 'response' }],
    [{ type: 'x' }],
    [{ type: 'response.x' }],
    [{ type: 'secret', ...at }],
  ])('%j is none from a private address', (value) => {
    expect([true, false].map((isPublic) => openAiResponses.isResponse(value, isPublic))).toEqual([
      true,
      false,
    ]);
  });

  it.each<[unknown, boolean]>([
    [{ object: 'response', status: 'completed', error: null }, false],
    [
      { type: 'response.completed', response: { object: 'response', status: 'completed', error: null } },
      false,
    ],
    [
      {
        type: 'response.incomplete',
        response: { status: 'incomplete', incomplete_details: { reason: 'x' } },
      },
      false,
    ],
    [{ type: 'response.output_item.done', item: { type: 'mcp_call', error: 'x' } }, false],
    [{ object: 'response', status: 'failed', error: null }, true],
    [{ object: 'response', status: 'completed', error: { message: 'x' } }, true],
    [{ type: 'response.failed', response: {} }, true],
    [{ type: 'response.completed', response: { object: 'response', error: { message: 'x' } } }, true],
    [{ type: 'error', message: 'x' }, true],
    [{ error: { message: 'x' } }, true],
  ])('%j reports an error: %s', (value, isError) => {
    expect(openAiResponses.hasError(value)).toBe(isError);
  });

  it.each([
    [{ type: 'error', code: 'c', message: 'm', param: null }],
    [{ type: 'error', error: { code: 'c', message: 'm', param: null } }],
    [{ type: 'response.failed', response: { error: { code: 'c', message: 'm' } } }],
    [{ object: 'response', status: 'failed', error: { code: 'c', message: 'm' } }],
    [{ error: { code: 'c', message: 'm' } }],
  ])('has its error found in %j', (value) => {
    expect(openAiResponses.findError(value)).toMatchObject({ error: { code: 'c', message: 'm' } });
  });
});
