import { describe, expect, it } from '@jest/globals';
import {
  checkPersonalKeyBody,
  checkSharedPayerBody,
  parseRequestBody,
} from '../../../../src/gateway/admission/request-body.ts';
import { openAiChat } from '../../../../src/gateway/surfaces/openai-chat/surface.ts';
import { isAppError } from '../../../../src/lib/errors.ts';

const parse = (text: string) => parseRequestBody(Buffer.from(text), openAiChat.interpretedFields);
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

describe('checkSharedPayerBody', () => {
  it('allows an ordinary request with tools, images and a schema', () => {
    const body = {
      model: 'demo',
      messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] }],
      tools: [{ type: 'function', function: { name: 'f' } }],
      response_format: { type: 'json_object' },
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
      store: false,
    };
    expect(
      refusedField(() => {
        checkSharedPayerBody(chat(body), openAiChat, []);
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
        checkSharedPayerBody(chat({ [field]: 'x' }), openAiChat, []);
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
        checkSharedPayerBody(chat(body), openAiChat, []);
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
        checkSharedPayerBody(chat(body), openAiChat, []);
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
        checkSharedPayerBody(chat(body), openAiChat, []);
      }),
    ).toBeUndefined();
  });

  it('lets the operator allow more fields, except steering fields', () => {
    expect(
      refusedField(() => {
        checkSharedPayerBody(chat({ service_tier: 'flex' }), openAiChat, ['service_tier']);
      }),
    ).toBeUndefined();
    expect(
      refusedField(() => {
        checkSharedPayerBody(chat({ api_key: 'x' }), openAiChat, ['api_key']);
      }),
    ).toBe('api_key');
  });

  it('refuses a duplicate member at any depth, since the upstream might read the other one', () => {
    for (const body of [
      '{"messages":[{"content":[{"file_id":"x"}]}],"messages":[]}',
      '{"tools":[{"type":"web_search","type":"function"}]}',
    ]) {
      const request = parse(body);
      expect(() => checkSharedPayerBody(request, openAiChat, [])).toThrow(
        expect.objectContaining({ code: 'ambiguous_field' }),
      );
      expect(() => checkPersonalKeyBody(request, true)).not.toThrow();
    }
  });
});
