import { describe, expect, it } from '@jest/globals';
import {
  admitSharedPayerBody,
  checkPersonalKeyBody,
  parseRequestBody,
} from '../../../../src/gateway/admission/request-body.ts';
import { openAiChat } from '../../../../src/gateway/surfaces/openai-chat/surface.ts';
import { isAppError } from '../../../../src/lib/errors.ts';
import { receivedBody } from '../../admission/received-body.ts';

const parse = (text: string) => parseRequestBody(receivedBody(text), openAiChat);
const chat = (body: unknown) => parse(JSON.stringify(body));

function refusedField(check: () => void): string | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    if (!isAppError(error, 'field_not_allowed')) throw error;
    return error.errors?.[0]?.path;
  }
}

const STEERING = [
  ...['api_key', 'api_base', 'base_url', 'user_config', 'extra_headers', 'model_info'],
  ...['router_settings_override', 'litellm_params', 'litellm_metadata', 'litellm_credential_name'],
  ...['vertex_credentials', 'aws_bedrock_runtime_endpoint', 'azure_ad_token'],
  // Spellings that lax parsers accept: another letter case, U+017F for s, the Kelvin sign for k, U+0131 for i.
  ...['API_KEY', 'ba\u017fe_url', 'api_\u212aey', 'ap\u0131_base', 'AW\u017f_region'],
];

/** The error code of a check; undefined when it passes. */
function codeOf(check: () => void): string | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    return isAppError(error) ? error.code : 'another error';
  }
}

describe('checkPersonalKeyBody', () => {
  it.each(STEERING)('allows %s when the provider or the user set the address', (field) => {
    expect(
      refusedField(() => {
        checkPersonalKeyBody(chat({ [field]: 'x' }), false);
      }),
    ).toBeUndefined();
  });

  it.each(STEERING)('refuses %s when the operator set the address', (field) => {
    expect(
      refusedField(() => {
        checkPersonalKeyBody(chat({ [field]: 'x' }), true);
      }),
    ).toBe(field);
  });

  it('allows unknown fields', () => {
    expect(
      refusedField(() => {
        checkPersonalKeyBody(chat({ x_new: 1, previous_response_id: 'r' }), true);
      }),
    ).toBeUndefined();
  });
});

describe('admitSharedPayerBody', () => {
  it('allows an ordinary request with tools, images and a schema', () => {
    const body = {
      model: 'demo',
      messages: [
        { role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:image/png;base64,' } }] },
      ],
      tools: [{ type: 'function', function: { name: 'f' } }],
      response_format: { type: 'json_object' },
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
      store: false,
    };
    expect(
      refusedField(() => {
        admitSharedPayerBody(chat(body), openAiChat, []);
      }),
    ).toBeUndefined();
  });

  it.each([
    ...STEERING,
    'previous_response_id',
    'conversation',
    'prompt',
    'container',
    'web_search_options',
    'service_tier',
    'x_new',
    '__proto__x',
  ])('refuses %s and names it', (field) => {
    expect(
      refusedField(() => {
        admitSharedPayerBody(chat({ [field]: 'x' }), openAiChat, []);
      }),
    ).toBe(field);
  });

  it.each<[string, unknown]>([
    ['store', { store: true }],
    ['tools', { tools: [{ type: 'web_search' }] }],
    ['tools', { tools: [{ type: 'function' }, { type: 'code_interpreter' }] }],
    ['tools', { tools: [{}] }],
    [
      'messages.content.file.file_id',
      { messages: [{ content: [{ type: 'file', file: { file_id: 'file-1' } }] }] },
    ],
    ['messages.content.file_id', { messages: [{ content: [{ type: 'input_file', file_id: 'file-1' }] }] }],
    ['messages.audio.id', { messages: [{ role: 'assistant', audio: { id: 'audio_1' } }] }],
    ['store', { store: 'true' }],
    ['store', { store: 1 }],
    ['tools', { tools: [{ type: ['function'] }] }],
    ['tools', { tools: [{ type: 'function', Type: 'web_search' }] }],
    ['tools', { tools: [{ Type: 'function' }] }],
    ['tools', { tools: ['web_search'] }],
    [
      'messages.content.image.source.File_ID',
      { messages: [{ content: [{ image: { source: { File_ID: 1 } } }] }] },
    ],
    ['messages.attachments.\ufb01le_id', { messages: [{ attachments: [{ '\ufb01le_id': 'x' }] }] }],
    ['messages.file_id', { messages: [{ content: 'x', file_id: null }] }],
    ['messages.Audio.ID', { messages: [{ Audio: { ID: 'audio_1' } }] }],
    ['messages.audio.reference.id', { messages: [{ audio: [{ reference: { id: 'audio_1' } }] }] }],
  ])('refuses hosted tools and stored objects: %s', (field, body) => {
    expect(
      refusedField(() => {
        admitSharedPayerBody(chat(body), openAiChat, []);
      }),
    ).toBe(field);
  });

  it.each([
    { tools: { 0: { type: 'web_search' } } },
    { tools: 'web_search' },
    { tools: null },
    { messages: { 0: { content: [{ file_id: 'x' }] } } },
    { messages: 'x' },
    { messages: null },
    { messages: ['x'] },
    { messages: [[{ content: 'x' }]] },
    { messages: [{ content: { 0: 'x' } }] },
    { messages: [{ content: 1 }] },
    { messages: [{ Content: { type: 'x' } }] },
  ])('refuses a shape that an upstream might read differently: %j', (body) => {
    expect(
      codeOf(() => {
        admitSharedPayerBody(chat(body), openAiChat, []);
      }),
    ).toBe('validation_failed');
  });

  it.each([
    { store: null },
    { messages: [{ role: 'assistant', content: null, tool_calls: [{ id: 'call_1', type: 'function' }] }] },
    { messages: [{ content: [{ type: 'input_audio', input_audio: { data: '', format: 'wav' } }] }] },
    { messages: [{ content: 'the words file_id and audio' }] },
    { messages: [] },
  ])('allows a body without stored objects: %j', (body) => {
    expect(
      codeOf(() => {
        admitSharedPayerBody(chat(body), openAiChat, []);
      }),
    ).toBeUndefined();
  });

  it('lets the operator allow more fields, except steering fields', () => {
    expect(
      refusedField(() => {
        admitSharedPayerBody(chat({ service_tier: 'flex' }), openAiChat, ['service_tier']);
      }),
    ).toBeUndefined();
    expect(
      refusedField(() => {
        admitSharedPayerBody(chat({ api_key: 'x' }), openAiChat, ['api_key']);
      }),
    ).toBe('api_key');
  });

  it('refuses a duplicate member at any depth, since the upstream might read the other one', () => {
    for (const body of [
      '{"messages":[{"content":[{"file_id":"x"}]}],"messages":[]}',
      '{"tools":[{"type":"web_search","type":"function"}]}',
      '{"seed":1,"seed":2}',
      '{"messages":[{"content":"x","content":"y"}]}',
      '{"messages":[],"metadata":{"a":[{"__proto__":1,"__proto__":2}]}}',
      '{"tools":[{"type":"function","function":{"parameters":{"$ref":"http://x","\\u0024ref":"#"}}}]}',
    ]) {
      const request = parse(body);
      expect(() => checkPersonalKeyBody(request, true)).not.toThrow();
      expect(() => admitSharedPayerBody(request, openAiChat, [])).toThrow(
        expect.objectContaining({ code: 'ambiguous_field' }),
      );
    }
  });

  const fieldOf = (body: unknown, extraFields: string[] = []) =>
    refusedField(() => {
      admitSharedPayerBody(chat(body), openAiChat, extraFields);
    });
  const withPart = (part: unknown) => ({ messages: [{ role: 'user', content: [part] }] });

  it.each<[string, unknown[]]>([
    ['metadata', [{ team: 'a' }, null]],
    ['prompt_cache_key', ['k', null]],
    ['prompt_cache_retention', ['24h']],
    ['service_tier', ['auto', 'default', null]],
    ['modalities', [['text'], null]],
    ['audio', [null]],
    ['reasoning', [{ effort: 'high' }]],
    ['include_reasoning', [true]],
    ['usage', [{ include: true }]],
    ['session_id', ['s']],
    ['thinking', [{ type: 'enabled', budget_tokens: 1000 }]],
    ['cache_control', [{ type: 'ephemeral' }]],
  ])('drops %s, which can neither cost nor steer, and keeps all other fields', (field, values) => {
    for (const value of values) {
      const rest = { model: 'm', messages: [{ role: 'user', content: 'é\u2028"' }], temperature: 0 };
      const admitted = admitSharedPayerBody(chat({ [field]: value, ...rest }), openAiChat, []);
      expect(admitted.dropped).toEqual([field]);
      expect(admitted.body.withModel('x').toString()).toBe(JSON.stringify({ ...rest, model: 'x' }));
    }
  });

  it('names the dropped fields in the order of the body, and reads what is left as before', () => {
    const body = { usage: {}, stream: true, metadata: {}, model: 'm' };
    const { body: left, dropped } = admitSharedPayerBody(chat(body), openAiChat, []);
    expect(dropped).toEqual(['usage', 'metadata']);
    expect(left).toMatchObject({ isStreaming: true, model: 'm', fieldNames: ['stream', 'model'] });
  });

  it('passes a body without such fields as its bytes', () => {
    const text = '{ "model" : "m",\t"seed":12345678901234567890 }';
    const { body, dropped } = admitSharedPayerBody(parse(text), openAiChat, []);
    expect([body.withModel('m').toString(), dropped]).toEqual([text, []]);
  });

  it('passes a field that the operator allows, whatever its value', () => {
    const { body, dropped } = admitSharedPayerBody(chat({ service_tier: 'auto' }), openAiChat, [
      'service_tier',
    ]);
    expect([body.fieldNames, dropped]).toEqual([['service_tier'], []]);
  });

  it.each<[string, unknown]>([
    ['service_tier', { service_tier: 'priority' }],
    ['service_tier', { service_tier: 'flex' }],
    ['service_tier', { service_tier: ['auto'] }],
    ['modalities', { modalities: ['text', 'audio'] }],
    ['modalities', { modalities: 'text' }],
    ['audio', { audio: { voice: 'alloy', format: 'wav' } }],
    ['Metadata', { Metadata: {} }],
    ['provider', { provider: { order: ['x'] } }],
    ['models', { models: ['a', 'b'] }],
    ['route', { route: 'fallback' }],
    ['plugins', { plugins: [{ id: 'web' }] }],
    ['transforms', { transforms: [] }],
    ['web_search_options', { web_search_options: {} }],
    ['preset', { preset: 'p' }],
  ])('refuses what can cost or steer: %s in %j', (field, body) => {
    expect(fieldOf(body)).toBe(field);
  });

  it.each<[string, unknown]>([
    ['prediction.content.file_id', { prediction: { type: 'content', content: [{ file_id: 'f' }] } }],
    ['prediction.audio.id', { prediction: { audio: { id: 'audio_1' } } }],
    ['tool_choice', { tool_choice: { type: 'web_search_preview' } }],
    ['tool_choice', { tool_choice: { type: 'function', Type: 'mcp' } }],
    ['tool_choice', { tool_choice: { type: 'allowed_tools', allowed_tools: { tools: [{ type: 'mcp' }] } } }],
    ['tool_choice', { tool_choice: { type: 'allowed_tools', allowed_tools: { tools: [], Tools: [1] } } }],
    ['tool_choice', { tool_choice: { type: 'allowed_tools', allowed_tools: { tools: {} } } }],
    ['tool_choice', { tool_choice: { type: 'allowed_tools', tools: [], allowed_tools: { tools: [] } } }],
    ['tool_choice', { tool_choice: { name: 'web_search' } }],
    ['functions', { functions: [{ name: 'f', type: 'code_interpreter' }] }],
    ['functions', { functions: [{ name: 'f', TYPE: 'function' }] }],
    ['function_call', { function_call: { name: 'f', type: 'web_search' } }],
  ])('refuses stored objects and hosted tools in every field: %s in %j', (field, body) => {
    expect(fieldOf(body)).toBe(field);
  });

  it.each([
    { tool_choice: 'auto' },
    { tool_choice: null },
    { tool_choice: { type: 'function', function: { name: 'f' } } },
    { tool_choice: { type: 'custom', custom: { name: 'f' } } },
    {
      tool_choice: {
        type: 'allowed_tools',
        allowed_tools: { mode: 'auto', tools: [{ type: 'function', function: { name: 'f' } }] },
      },
    },
    { functions: [{ name: 'f', parameters: { type: 'object', properties: { file_id: {} } } }] },
    { functions: null, function_call: { name: 'f' } },
    { function_call: 'auto' },
    { prediction: { type: 'content', content: 'file_id' } },
    { n: 8, max_tokens: 128_000, max_completion_tokens: 128_000 },
    { n: null, max_tokens: null },
    { n: 1, max_tokens: 1 },
  ])('allows %j', (body) => {
    expect(fieldOf(body)).toBeUndefined();
  });

  it.each(
    ['n', 'max_tokens', 'max_completion_tokens'].flatMap((field) =>
      [field === 'n' ? 9 : 128_001, 100_000_000, 1e300, 0, -1, 1.5, '1', [1], true].map(
        (value) => [field, value] as const,
      ),
    ),
  )('bounds %s: %j is a 400 that names it', (field, value) => {
    expect(() => admitSharedPayerBody(chat({ [field]: value }), openAiChat, [])).toThrow(
      expect.objectContaining({
        code: 'validation_failed',
        errors: [expect.objectContaining({ path: field })],
      }),
    );
  });

  const media = (url: string) => [
    withPart({ type: 'image_url', image_url: { url } }),
    withPart({ type: 'image_url', Image_URL: { URL: url } }),
    withPart({ type: 'image_url', image_url: url }),
    withPart({ type: 'text', video_url: { url } }),
    withPart({ type: 'input_audio', audio_url: { url } }),
    withPart({ type: 'image_url', source: { type: 'url', url } }),
    withPart({ type: 'text', file: { file_data: url } }),
    withPart({ type: 'image_url', url }),
    withPart({ type: 'text', imageUrl: { url } }),
    withPart({ type: 'text', images: [url] }),
    withPart({ type: 'text', image_urls: [url] }),
    withPart({ type: 'text', file_data: { file_uri: url } }),
    withPart({ type: 'text', image_url: { src: url } }),
    { messages: [{ role: 'tool', content: [{ type: 'text', deep: [{ image: { uri: url } }] }] }] },
    { messages: [{ role: 'user', images: [url] }] },
    { prediction: { type: 'content', content: [{ type: 'text', image_url: { url } }] } },
  ];

  it.each([
    'http://example.com/a.png',
    'https://127.0.0.1/a.png',
    'https://10.0.0.5/',
    'https://169.254.169.254/latest/meta-data/',
    'https://[::1]/',
    'https://[::ffff:10.0.0.1]/',
    'https://[fd00::1]/',
    'https://0x7f000001/',
    'https://2130706433/',
    'https://localhost/',
    'https://LOCALHOST./',
    'https://metadata.google.internal/',
    'https://printer.local/',
    'https://intranet/',
    'https://keycloak.prod.svc/',
    'https://localhost../',
    'https://user:pw@example.com/',
    'ftp://example.com/a.png',
    'file:///etc/passwd',
    'gs://bucket/a.png',
    ' http://10.0.0.5/',
    'HTTP://10.0.0.5/',
    'file:/etc/passwd',
  ])('refuses media that an upstream would fetch from %s', (url) => {
    for (const body of media(url)) expect([body, typeof fieldOf(body)]).toEqual([body, 'string']);
  });

  it.each(['10.0.0.5/a.png', '//10.0.0.5/a.png', 'https:\\\\10.0.0.5', 'https:10.0.0.5/', ''])(
    'refuses an address that parsers read differently: %j',
    (url) => {
      expect(fieldOf(withPart({ type: 'image_url', image_url: { url } }))).toBe(
        'messages.content.image_url.url',
      );
    },
  );

  it.each([
    'data:image/png;base64,iVBORw0KGgo=',
    'https://example.com/a.png?x=1#y',
    'https://cdn.example.com:8443/a',
    'https://93.184.215.14/a.png',
    'https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/a.png',
  ])('allows media from %s', (url) => {
    for (const body of media(url)) expect(fieldOf(body)).toBeUndefined();
  });

  const PNG = Buffer.from('89504e470d0a1a0a', 'hex');
  const withBytes = (...bytes: (string | Buffer)[]) =>
    Buffer.concat(bytes.map((one) => Buffer.from(one))).toString('base64');

  it.each([
    ...['data:application/pdf;base64,AAAA', 'DATA:Application/PDF;base64,AAAA'],
    ...[
      ' data:application/pdf;base64,AAAA',
      'data:;base64,AAAA',
      'data:text/plain,x',
      'data:image/pdf;base64,AAAA',
    ],
    ...['data:image/svg+xml,<svg/>', 'data:image/svg+xml;base64,AAAA', 'data:image/*;base64,AAAA'],
    ...[
      'data:audio/x,application/pdf',
      'data:audio/x;base64,AAAA',
      'data:audio/wav,AAAA',
      'data:image/png,AAAA',
    ],
    ...['data:image/png;name=a.pdf;base64,AAAA', 'data:image/png;,application/pdf;base64,AAAA'],
    ...[
      'data:image/png;base64,JVBERi0xLjcK',
      'data:image/png;base64,JVBERi0=',
      'data:audio/wav;base64,JVBERi0x',
    ],
    ...[
      'data:image/png;base64, JVBE\nRi0x',
      'data:image/png;base64,=JVBERi0x',
      'data:image/png;base64,JVBE%52i0x',
    ],
    ...['data:image/png;base64,QQ==JVBERi0xLjcK', 'data:image/png;base64,iVBORw0KGgo=\n_AAA'],
    `data:image/png;base64,${withBytes('\n%PDF-1.7')}`,
    `data:image/png;base64,${withBytes(PNG, Buffer.alloc(1_000), '%PDF-1.7')}`,
    `data:image/png;base64,${' '.repeat(5_000)}JVBERi0xLjcK`,
    ...['https://example.com/a.pdf', 'https://example.com/a.PDF?x=1#y', 'https://example.com/a.%70df'],
    ...['https://example.com/a%2Epd%66', 'https://example.com/a.pdf/', 'https://example.com/a.pdf;x'],
    ...[
      'https://example.com/a.pdf%23',
      'https://example.com/a.pdf%00',
      'https://example.com/?file=a.pdf&y=1',
    ],
    ...['https://example.com/?file=a.pdf', 'https://example.com/a.pdf.png', 'https://example.com/a#.pdf'],
    `https://example.com/${'a'.repeat(8_192)}`,
  ])('refuses a document as media, which a provider may read with a tool that costs per page: %s', (url) => {
    for (const body of media(url)) expect([body, typeof fieldOf(body)]).toEqual([body, 'string']);
  });

  it.each(['JVBERi0xLjcK', '\nJVBE\nRi0xLjcK', `${' '.repeat(5_000)}JVBERi0xLjcK`])(
    'refuses a document in base64 as audio: %j',
    (data) => {
      const part = { type: 'input_audio', input_audio: { data, format: 'mp3' } };
      expect(fieldOf(withPart(part))).toBe('messages.content.input_audio.data');
    },
  );

  it.each([
    ...['png', 'jpeg', 'jpg', 'gif', 'webp'].map((type) => `data:image/${type};base64,iVBORw0KGgo=`),
    ...['wav', 'x-wav', 'mpeg', 'mp3', 'mp4', 'ogg', 'flac'].map(
      (type) => `data:audio/${type};base64,UklGRg==`,
    ),
    ...['DATA:IMAGE/PNG;BASE64,', `data:image/png;base64,${withBytes(PNG, Buffer.alloc(6_000))}`],
    `data:image/png;base64,${withBytes(PNG, Buffer.alloc(6_000)).replace(/.{76}/g, '$&\r\n')}`,
    `https://example.com/${'a'.repeat(8_000)}`,
    ...['https://cdn.pdf.example.com/a.png', 'https://example.com/a.pdfs', 'https://example.com/apdf%20.png'],
  ])('allows images and audio as data, and addresses that name no document: %s', (url) => {
    for (const body of media(url)) expect(fieldOf(body)).toBeUndefined();
  });

  it('allows media in base64 that begins with slashes', () => {
    const part = { type: 'input_audio', input_audio: { data: '//uQxAAAAAAA', format: 'mp3' } };
    expect(fieldOf(withPart(part))).toBeUndefined();
  });

  it('searches a member with a long name and many strings in one pass', () => {
    const strings = Array.from({ length: 10_000 }, () => '');
    const part = { type: 'text', image_url: { ['A'.repeat(1_000_000)]: strings } };
    expect(fieldOf(withPart(part))).toBeUndefined();
  });

  it('refuses more texts of media than a request has, since each takes time', () => {
    const data = Array.from({ length: 10_001 }, () => 'AAAAAAA');
    expect(fieldOf(withPart({ type: 'input_audio', input_audio: { data } }))).toBe(
      'messages.content.input_audio.data',
    );
  });

  it.each([
    { type: 'text', text: 'x' },
    ...[{}, { ttl: '5m' }, { ttl: null }].map((ttl) => ({
      ...{ type: 'text', text: 'x', cache_control: { type: 'ephemeral', ...ttl } },
    })),
    { type: 'image_url', image_url: { url: 'data:image/png;base64,' } },
    { type: 'input_audio', input_audio: { data: '', format: 'wav' } },
    { type: 'refusal', refusal: 'x' },
  ])('allows a content part that the protocol documents as inline: %j', (part) => {
    expect(fieldOf(withPart(part))).toBeUndefined();
    expect(fieldOf({ prediction: { type: 'content', content: [part] } })).toBeUndefined();
  });

  it.each(['data:application/pdf;base64,', 'https://example.com/a.pdf'])(
    'refuses a file, which a provider may read with a tool that costs per page: %s',
    (file_data) => {
      const part = { type: 'file', file: { filename: 'a.pdf', file_data } };
      const own = { type: 'file', file: { filename: 'a.pdf' } };
      for (const [one, name] of [
        [part, 'file.file_data'],
        [own, 'type'],
      ] as const) {
        expect(fieldOf(withPart(one))).toBe(`messages.content.${name}`);
        expect(fieldOf({ prediction: { type: 'content', content: [one] } })).toBe(
          `prediction.content.${name}`,
        );
      }
    },
  );

  it.each(
    ['1h', '24h', '', 300, {}, ['5m']].flatMap((ttl) => [
      ['ttl', { cache_control: { type: 'ephemeral', ttl } }] as const,
      ['TTL', { Cache_Control: { type: 'ephemeral', TTL: ttl } }] as const,
    ]),
  )('refuses a cache whose lifetime costs more: %s in %j', (name, marked) => {
    const cache = Object.keys(marked)[0] ?? '';
    const tool = { type: 'function', function: { name: 'f' }, ...marked };
    expect([
      fieldOf(withPart({ type: 'text', text: 'x', ...marked })),
      fieldOf({ messages: [{ role: 'user', content: 'x', ...marked }] }),
      fieldOf({ prediction: { type: 'content', content: [{ type: 'text', text: 'x', ...marked }] } }),
      fieldOf({ tools: [tool] }),
      fieldOf({ functions: [{ name: 'f', ...marked }] }),
    ]).toEqual(
      ['messages.content', 'messages', 'prediction.content', 'tools', 'functions'].map(
        (path) => `${path}.${cache}.${name}`,
      ),
    );
  });

  it('reads the lifetime of a cache in the schema of an argument as a schema', () => {
    const parameters = {
      properties: { ttl: {}, cache_control: { type: 'object', properties: { ttl: { type: 'string' } } } },
    };
    expect(fieldOf({ tools: [{ type: 'function', function: { name: 'f', parameters } }] })).toBeUndefined();
  });

  it.each([
    ...['input_file', 'input_image', 'video_url', 'document', 'item_reference', 'tool_result', 'TEXT', ''],
    ...[null, 1, ['text'], { text: 'text' }],
  ])('refuses a content part of another type: %j', (type) => {
    expect(fieldOf(withPart({ type, text: 'x' }))).toBe('messages.content.type');
    expect(fieldOf({ prediction: { content: [{ type }] } })).toBe('prediction.content.type');
  });

  it.each([{ text: 'x' }, { Type: 'text' }, { type: 'text', Type: 'document' }, { type: 'text', TYPE: 1 }])(
    'refuses a content part whose type an upstream might read differently: %j',
    (part) => {
      expect(fieldOf(withPart(part))).toBe('messages.content.type');
    },
  );

  it.each(['x', 1, null, [[]]])('refuses a content part that is no object: %j', (part) => {
    expect(codeOf(() => admitSharedPayerBody(chat(withPart(part)), openAiChat, []))).toBe(
      'validation_failed',
    );
  });

  const schemas = (schema: unknown): [string, unknown][] => [
    [
      'tools.function.parameters',
      { tools: [{ type: 'function', function: { name: 'f', parameters: schema } }] },
    ],
    ['functions.parameters', { functions: [{ name: 'f', parameters: schema }] }],
    [
      'response_format.json_schema.schema',
      { response_format: { type: 'json_schema', json_schema: { name: 's', schema } } },
    ],
  ];

  it.each(
    [
      'http://10.0.0.5/s',
      'https://example.com/s#/a',
      'file:///etc/passwd',
      'other.json',
      '//x/s',
      '',
    ].flatMap((target) =>
      ['$ref', '$dynamicRef', '$recursiveRef', '$Ref', '$REF'].map((name) => [name, target] as const),
    ),
  )('refuses a schema whose %s is %j, which an upstream may fetch', (name, target) => {
    for (const [path, body] of schemas({ [name]: target })) expect(fieldOf(body)).toBe(`${path}.${name}`);
    for (const [, body] of schemas({ properties: { a: { anyOf: [{}, { items: { [name]: target } }] } } }))
      expect(typeof fieldOf(body)).toBe('string');
  });

  it.each([
    { $ref: '#/$defs/a', $defs: { a: { $dynamicRef: '#a' } } },
    { $recursiveRef: '#' },
    { $schema: 'http://json-schema.org/draft-07/schema#', $id: 'https://example.com/s' },
    { properties: { $ref: { type: 'string' }, ref: { const: 'http://10.0.0.5/' } } },
    { description: 'see http://10.0.0.5/' },
  ])('allows a schema that refers only to itself: %j', (schema) => {
    for (const [, body] of schemas(schema)) expect(fieldOf(body)).toBeUndefined();
  });

  it('reads references in texts and in fields that are no schema as texts', () => {
    expect(fieldOf({ messages: [{ role: 'user', content: '{"$ref":"http://10.0.0.5/"}' }] })).toBeUndefined();
    expect(fieldOf({ metadata: { $ref: 'http://10.0.0.5/' } })).toBeUndefined();
  });

  it('reads addresses in texts and in citations as texts', () => {
    const url = 'http://10.0.0.5/';
    expect(fieldOf({ messages: [{ role: 'user', content: url }] })).toBeUndefined();
    expect(fieldOf(withPart({ type: 'text', text: url }))).toBeUndefined();
    const annotations = [{ type: 'url_citation', url_citation: { url } }];
    expect(fieldOf({ messages: [{ role: 'assistant', content: 'x', annotations }] })).toBeUndefined();
  });
});
