import { describe, expect, it } from '@jest/globals';
import { checkOwnKeyBody, checkSharedPayerBody } from '../../src/gateway/body-rules.ts';
import { readChatRequest } from '../../src/gateway/chat-request.ts';
import { isAppError } from '../../src/lib/errors.ts';

const chat = (body: unknown) => readChatRequest(Buffer.from(JSON.stringify(body)));

function refusedField(check: () => void): string | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    if (!isAppError(error, 'field_not_allowed')) throw error;
    return error.errors?.[0]?.path;
  }
}

const STEERING = ['api_key', 'api_base', 'base_url', 'user_config', 'extra_headers', 'API_KEY'];

describe('the body of a request on an own key', () => {
  it.each(STEERING)('passes %s to an address that the provider itself or the user set', (field) => {
    expect(
      refusedField(() => {
        checkOwnKeyBody(chat({ [field]: 'x' }), false);
      }),
    ).toBeUndefined();
  });

  it.each(STEERING)('refuses %s where the operator set the address', (field) => {
    expect(
      refusedField(() => {
        checkOwnKeyBody(chat({ [field]: 'x' }), true);
      }),
    ).toBe(field);
  });

  it('passes fields that we do not know', () => {
    expect(
      refusedField(() => {
        checkOwnKeyBody(chat({ x_new: 1, previous_response_id: 'r' }), true);
      }),
    ).toBeUndefined();
  });
});

describe('the body of a request that somebody else pays for', () => {
  it('passes an ordinary request with tools, images and a schema', () => {
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
        checkSharedPayerBody(chat(body), []);
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
        checkSharedPayerBody(chat({ [field]: 'x' }), []);
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
  ])('refuses hosted tools and stored objects: %s', (field, body) => {
    expect(
      refusedField(() => {
        checkSharedPayerBody(chat(body), []);
      }),
    ).toBe(field);
  });

  it('lets the operator extend the list, but not by a steering field', () => {
    expect(
      refusedField(() => {
        checkSharedPayerBody(chat({ service_tier: 'flex' }), ['service_tier']);
      }),
    ).toBeUndefined();
    expect(
      refusedField(() => {
        checkSharedPayerBody(chat({ api_key: 'x' }), ['api_key']);
      }),
    ).toBe('api_key');
  });

  it('refuses a member that stands twice, wherever it is: the upstream might read the other one', () => {
    for (const body of [
      '{"messages":[{"content":[{"file_id":"x"}]}],"messages":[]}',
      '{"tools":[{"type":"web_search","type":"function"}]}',
    ]) {
      const request = readChatRequest(Buffer.from(body));
      expect(() => checkSharedPayerBody(request, [])).toThrow(
        expect.objectContaining({ code: 'ambiguous_field' }),
      );
      expect(() => checkOwnKeyBody(request, true)).not.toThrow();
    }
  });
});
