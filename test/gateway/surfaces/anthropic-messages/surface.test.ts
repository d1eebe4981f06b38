import { describe, expect, it } from '@jest/globals';
import { admitSharedPayerBody, parseRequestBody } from '../../../../src/gateway/admission/request-body.ts';
import {
  anthropicMessages,
  anthropicTokenCount,
} from '../../../../src/gateway/surfaces/anthropic-messages/surface.ts';
import type { Surface } from '../../../../src/gateway/surface.ts';
import { isAppError } from '../../../../src/lib/errors.ts';
import { receivedBody } from '../../admission/received-body.ts';

const admit = (body: unknown, surface: Surface = anthropicMessages) =>
  admitSharedPayerBody(
    parseRequestBody(receivedBody(typeof body === 'string' ? body : JSON.stringify(body)), surface),
    surface,
    [],
  );

/** Code and field of a refusal; undefined when the body is admitted. */
function refusalOf(body: unknown, surface?: Surface): string | undefined {
  try {
    admit(body, surface);
    return undefined;
  } catch (error) {
    if (!isAppError(error)) throw error;
    return `${error.code} ${error.errors?.[0]?.path ?? ''}`.trim();
  }
}

const withBlock = (block: unknown) => ({ messages: [{ role: 'user', content: [block] }] });
const ofResult = (content: unknown) => withBlock({ type: 'tool_result', tool_use_id: 't', content });
const IMAGE = { type: 'base64', media_type: 'image/png', data: 'iVBORw0KGgo=' };
const PDF = { type: 'base64', media_type: 'application/pdf', data: 'JVBERi0xLjQ=' };
const CACHE = { cache_control: { type: 'ephemeral' } };

describe('a body that a shared payer pays for', () => {
  it.each<[string, object]>([
    [
      'plain texts',
      { model: 'm', max_tokens: 128_000, system: 's', messages: [{ role: 'user', content: 'x' }] },
    ],
    ['sampling', { temperature: 0, top_p: 1, top_k: 5, stop_sequences: ['x'], stream: true }],
    [
      'blocks of the system',
      {
        system: [
          { type: 'text', text: 's', ...CACHE },
          { type: 'text', text: 't' },
        ],
      },
    ],
    ['a cache with its default lifetime', { cache_control: { type: 'ephemeral', ttl: '5m' } }],
    ['thinking', { thinking: { type: 'enabled', budget_tokens: 1024 } }],
    ['adaptive thinking', { thinking: { type: 'adaptive' }, output_config: { effort: 'high' } }],
    [
      'a schema of the output',
      { output_format: { type: 'json_schema', schema: { $ref: '#/$defs/a', $defs: {} } } },
    ],
    ['a tool of the client', { tools: [{ name: 'f', input_schema: { type: 'object' }, ...CACHE }] }],
    ['a custom tool', { tools: [{ type: 'custom', name: 'f', strict: true }], tool_choice: { type: 'any' } }],
    [
      'tools of Anthropic that the client runs',
      {
        tools: [
          { type: 'bash_20250124', name: 'bash' },
          { type: 'text_editor_20250728', name: 'str_replace_based_edit_tool', max_characters: 1 },
          { type: 'computer_20251124', name: 'computer', display_width_px: 1, display_height_px: 1 },
          { type: 'memory_20250818', name: 'memory' },
        ],
        tool_choice: { type: 'tool', name: 'bash', disable_parallel_tool_use: true },
      },
    ],
    ['an image', withBlock({ type: 'image', source: IMAGE, ...CACHE })],
    [
      'an image at public https',
      withBlock({ type: 'image', source: { type: 'url', url: 'https://example.com/a.png' } }),
    ],
    ['a document', withBlock({ type: 'document', source: PDF, title: 't', citations: { enabled: true } })],
    [
      'a text as document',
      withBlock({ type: 'document', source: { type: 'text', media_type: 'text/plain', data: 'x' } }),
    ],
    [
      'content as document',
      withBlock({ type: 'document', source: { type: 'content', content: [{ type: 'text', text: 'x' }] } }),
    ],
    [
      'a document at public https',
      withBlock({ type: 'document', source: { type: 'url', url: 'https://example.com/a.pdf' } }),
    ],
    [
      'a result with an image',
      ofResult([
        { type: 'image', source: IMAGE },
        { type: 'text', text: 'x' },
      ]),
    ],
    ['a result as text', ofResult('see http://10.0.0.5/')],
    [
      'a search result',
      withBlock({
        type: 'search_result',
        source: 'http://10.0.0.5/',
        title: 't',
        content: [{ type: 'text', text: 'x' }],
      }),
    ],
    [
      'a turn of the model as it was received',
      {
        messages: [
          {
            role: 'assistant',
            content: [
              { type: 'thinking', thinking: 't', signature: 's' },
              { type: 'redacted_thinking', data: 'd' },
              { type: 'text', text: 'x', citations: null },
              { type: 'tool_use', id: 't', name: 'f', input: {}, caller: { type: 'direct' } },
            ],
          },
        ],
      },
    ],
    [
      'any arguments of a tool',
      withBlock({
        type: 'tool_use',
        id: 't',
        name: 'read',
        input: {
          url: 'http://10.0.0.5/',
          file_id: 'f',
          source: { type: 'file' },
          content: 1,
          type: 'web_search',
        },
      }),
    ],
  ])('has %s', (_name, body) => {
    expect(refusalOf(body)).toBeUndefined();
  });

  it.each([
    ...[
      'container',
      'mcp_servers',
      'inference_geo',
      'speed',
      'service_tier',
      'betas',
      'anthropic_beta',
      'x_new',
    ],
    ...['Metadata', 'api_key', 'extra_headers', 'stream_options', 'n', 'store', 'fallbacks'],
  ])('has no field %s', (field) => {
    expect(refusalOf({ [field]: 'x' })).toBe(`field_not_allowed ${field}`);
  });

  it.each<[object, string[]]>([
    [{ metadata: { user_id: 'u' } }, ['metadata']],
    [{ context_management: { edits: [{ type: 'compact_20260112' }] } }, ['context_management']],
    [{ service_tier: 'standard_only' }, ['service_tier']],
    [{ container: null, mcp_servers: [] }, ['container', 'mcp_servers']],
    [{ speed: 'standard' }, ['speed']],
  ])('loses what can neither cost nor steer: %j', (fields, dropped) => {
    const admitted = admit({ ...fields, model: 'm' });
    expect([admitted.dropped, admitted.body.withModel('m').toString()]).toEqual([dropped, '{"model":"m"}']);
  });

  it.each([
    ...[
      'web_search_20250305',
      'web_fetch_20250910',
      'code_execution_20250825',
      'tool_search_tool_bm25_20251119',
    ],
    ...[
      'mcp_toolset',
      'advisor_20260301',
      'bash',
      'bash_20250124x',
      'computer_use',
      'function',
      '',
      1,
      {},
      ['custom'],
    ],
  ])('has no tool that the provider runs, and none that is unknown: %j', (type) => {
    expect(refusalOf({ tools: [{ type, name: 'x' }] })).toBe('field_not_allowed tools');
  });

  it.each([
    { tools: [{ type: 'custom', Type: 'web_search_20250305' }] },
    { tools: [{ TYPE: 'custom' }] },
    { tools: [{ type: 'custom', name: 'f' }, { type: 'web_search_20250305' }] },
  ])('has no tool whose type an upstream might read differently: %j', (body) => {
    expect(refusalOf(body)).toBe('field_not_allowed tools');
  });

  it.each([{ type: 'web_search' }, { name: 'x' }, { type: 'auto', Type: 'x' }, { type: 'any', mcp: 1 }])(
    'has no other choice of a tool: %j',
    (choice) => {
      expect(refusalOf({ tool_choice: choice })).toBe('field_not_allowed tool_choice');
    },
  );

  it.each([
    ...['server_tool_use', 'web_search_tool_result', 'web_fetch_tool_result', 'code_execution_tool_result'],
    ...[
      'mcp_tool_use',
      'mcp_tool_result',
      'container_upload',
      'compaction',
      'tool_reference',
      'image_url',
      'TEXT',
      1,
    ],
  ])('has no block of the type %j', (type) => {
    expect(refusalOf(withBlock({ type }))).toBe('field_not_allowed messages.content.type');
  });

  it.each<[string, unknown]>([
    ['messages.content.type', withBlock({ text: 'x' })],
    ['messages.content.file_id', withBlock({ type: 'text', text: 'x', file_id: 'f' })],
    ['messages.content.Type', withBlock({ type: 'text', Type: 'document' })],
    ['messages.content.source', withBlock({ type: 'text', text: 'x', source: PDF })],
    ['messages.id', { messages: [{ role: 'user', content: 'x', id: 'msg_1' }] }],
    ['system.type', { system: [{ type: 'image', source: IMAGE }] }],
    ['messages.content.content.type', ofResult([{ type: 'tool_use', id: 'x', name: 'f', input: {} }])],
    ['messages.content.source.file_id', withBlock({ type: 'image', source: { type: 'file', file_id: 'f' } })],
    ['messages.content.source.File_ID', withBlock({ type: 'document', source: { ...PDF, File_ID: 'f' } })],
    ['messages.content.source.path', withBlock({ type: 'document', source: { ...PDF, path: 'f' } })],
    ['messages.content.source', withBlock({ type: 'document', source: { type: 'file' } })],
    [
      'messages.content.source',
      withBlock({ type: 'image', source: { ...IMAGE, media_type: 'application/pdf' } }),
    ],
    ['messages.content.source', withBlock({ type: 'image', source: { ...IMAGE, data: PDF.data } })],
    ['messages.content.source', withBlock({ type: 'image', source: { ...IMAGE, url: 'https://10.0.0.5/' } })],
    [
      'messages.content.source.content.source',
      withBlock({
        type: 'document',
        source: {
          type: 'content',
          content: [{ type: 'image', source: { type: 'url', url: 'http://10.0.0.5/' } }],
        },
      }),
    ],
    ['cache_control.ttl', { cache_control: { type: 'ephemeral', ttl: '1h' } }],
    ['system.cache_control.ttl', { system: [{ type: 'text', text: 'x', cache_control: { TTL: '1h' } }] }],
    [
      'messages.content.cache_control.ttl',
      withBlock({ type: 'text', text: 'x', cache_control: { ttl: '1h' } }),
    ],
    ['tools.cache_control.ttl', { tools: [{ name: 'f', cache_control: { ttl: '1h' } }] }],
    [
      'tools.input_schema.$ref',
      { tools: [{ name: 'f', input_schema: { items: { $ref: 'http://10.0.0.5/' } } }] },
    ],
    ['output_format.$dynamicRef', { output_format: { schema: [{ $dynamicRef: 'https://example.com/' }] } }],
    ['output_config.$ref', { output_config: { format: { schema: { $ref: 'other.json' } } } }],
  ])('refuses stored objects, other addresses and other prices: %s', (path, body) => {
    expect(refusalOf(body)).toBe(`field_not_allowed ${path}`);
  });

  it.each([
    'http://example.com/',
    'https://127.0.0.1/',
    'https://10.0.0.5/',
    'https://[::1]/',
    'https://localhost/',
  ])('has no image and no document at %s', (url) => {
    for (const type of ['image', 'document'])
      expect(refusalOf(withBlock({ type, source: { type: 'url', url } }))).toBe(
        'field_not_allowed messages.content.source',
      );
  });

  it.each<[string, unknown]>([
    ['max_tokens', { max_tokens: 128_001 }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: '1' }],
    ['thinking.budget_tokens', { thinking: { type: 'enabled', budget_tokens: 1e9 } }],
    ['tools', { tools: {} }],
    ['tools', { tools: ['x'] }],
    ['tool_choice', { tool_choice: 'auto' }],
    ['messages', { messages: {} }],
    ['messages', { messages: ['x'] }],
    ['messages.content', { messages: [{ role: 'user' }] }],
    ['messages.content', { messages: [{ role: 'user', content: { type: 'text' } }] }],
    ['messages.content', withBlock('x')],
    ['messages.content.source', withBlock({ type: 'image', source: 'x' })],
    ['system', { system: 1 }],
  ])('has no other value of %s: %j', (path, body) => {
    expect(refusalOf(body)).toBe(`validation_failed ${path}`);
  });

  it('has no two members of one name at any depth', () => {
    for (const body of [
      '{"system":"a","system":"b"}',
      '{"messages":[{"role":"user","content":"x","content":"y"}]}',
      '{"tools":[{"name":"f","type":"web_search_20250305","type":"custom"}]}',
      '{"messages":[{"role":"user","content":[{"type":"tool_use","input":{"a":[{"b":1,"b":2}]}}]}]}',
    ])
      expect(refusalOf(body)).toBe('ambiguous_field');
  });

  it('is counted with the fields of a count alone', () => {
    expect(
      refusalOf({ model: 'm', system: 's', messages: [], tools: [] }, anthropicTokenCount),
    ).toBeUndefined();
    for (const field of ['max_tokens', 'stream', 'temperature'])
      expect(refusalOf({ [field]: field === 'stream' }, anthropicTokenCount)).toBe(
        `field_not_allowed ${field}`,
      );
  });
});

describe('a response of the protocol', () => {
  const message = { type: 'message', role: 'assistant', content: [] };
  const EVENTS = [
    { type: 'message_start', message },
    { type: 'content_block_start', index: 0, content_block: {} },
    { type: 'content_block_delta', index: 0, delta: {} },
    { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: {} },
    { type: 'message_stop' },
    { type: 'ping' },
  ];

  it.each([message, ...EVENTS])('is recognized from every address: %j', (value) => {
    expect([anthropicMessages.isResponse(value, true), anthropicMessages.isResponse(value, false)]).toEqual([
      true,
      true,
    ]);
    expect(anthropicMessages.hasError(value)).toBe(false);
  });

  it('can have a type that is new, from a public address alone', () => {
    const value = { type: 'new_event' };
    expect([anthropicMessages.isResponse(value, true), anthropicMessages.isResponse(value, false)]).toEqual([
      true,
      false,
    ]);
  });

  it.each([
    ...[null, [], 'x', {}, { type: '' }, { type: 1 }, { content: [] }],
    ...[
      { type: 'message' },
      { type: 'message_start', message: {} },
      { type: 'content_block_delta' },
      { type: 'toString' },
    ],
  ])('is not any other value, from a private address: %j', (value) => {
    expect(anthropicMessages.isResponse(value, false)).toBe(false);
  });

  it.each([
    { type: 'error', error: { type: 'x', message: 'm' } },
    { type: 'message', content: [], error: { message: 'm' } },
    { error: 'm' },
    [{ error: { message: 'm' } }],
    { object: 'error', message: 'm' },
  ])('that reports an error is one: %j', (value) => {
    expect(anthropicMessages.hasError(value)).toBe(true);
    expect(anthropicMessages.findError(value)).toMatchObject({ type: 'error', error: { message: 'm' } });
  });

  it('to a count is a number of tokens', () => {
    expect(anthropicTokenCount.isResponse({ input_tokens: 1 }, false)).toBe(true);
    expect(anthropicTokenCount.isResponse(message, true)).toBe(false);
  });
});
