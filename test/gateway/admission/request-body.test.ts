import { describe, expect, it } from '@jest/globals';
import { parseRequestBody } from '../../../src/gateway/admission/request-body.ts';
import { openAiChat } from '../../../src/gateway/surfaces/openai-chat/surface.ts';
import { isAppError } from '../../../src/lib/errors.ts';
import { measureRetainedBytes } from '../../support/retained-bytes.ts';
import { receivedBody } from './received-body.ts';

const readChatRequest = (body: Buffer) => parseRequestBody(receivedBody(body), openAiChat);

function codeOf(body: string | Buffer): string | undefined {
  try {
    readChatRequest(Buffer.from(body));
    return undefined;
  } catch (error) {
    return isAppError(error) ? error.code : 'another error';
  }
}

describe('parseRequestBody', () => {
  it('replaces the model in place and leaves all other bytes unchanged', () => {
    const body =
      '{ "messages":[{"role":"user","content":"\\u00e9 é \u{1F600}"}],\n\t"model" : "demo/x" , "temperature":0.0,"big":12345678901234567890 }';
    expect(readChatRequest(Buffer.from(body)).withModel('y"z').toString()).toBe(
      body.replace('"demo/x"', '"y\\"z"'),
    );
  });

  it('does not change the word model inside values', () => {
    const body = '{"messages":[{"model":"inner"}],"x":"\\"model\\":1","model":"outer"}';
    expect(readChatRequest(Buffer.from(body)).withModel('new').toString()).toBe(
      body.replace('"outer"', '"new"'),
    );
  });

  it.each([
    ['{}', '{"model":"m"}'],
    [' { "a":1}', ' {"model":"m", "a":1}'],
  ])('inserts a missing model first in %s', (body, expected) => {
    expect(readChatRequest(Buffer.from(body)).withModel('m').toString()).toBe(expected);
  });

  it('replaces the model again, and copies nothing when the model is the same', () => {
    const body = Buffer.from('{"a":"\u{1F600}","model":"one","b":2}');
    const request = readChatRequest(body);
    expect(request.withModel('one').buffer).toBe(body.buffer);
    expect(request.withModel('two-é').toString()).toBe('{"a":"\u{1F600}","model":"two-é","b":2}');
    expect(request.withModel('three').toString()).toBe('{"a":"\u{1F600}","model":"three","b":2}');
    const bare = readChatRequest(Buffer.from('{"a":1}'));
    expect(bare.withModel('m').toString()).toBe('{"model":"m","a":1}');
    expect(bare.withModel('n').toString()).toBe('{"model":"n","a":1}');
  });

  it('retains only the bytes of a body once the payer is known, and nothing after release', async () => {
    const sizeBytes = 8 * 1024 * 1024;
    const before = await measureRetainedBytes();
    const request = readChatRequest(
      Buffer.from(`{"model":"p/m","messages":["${'é'.repeat(sizeBytes / 2)}"]}`),
    );
    request.withModel('m');
    expect((await measureRetainedBytes()) - before).toBeLessThan(1.3 * sizeBytes);
    request.release();
    expect((await measureRetainedBytes()) - before).toBeLessThan(0.3 * sizeBytes);
    expect(() => request.withModel('m')).toThrow('released');
  });

  it('replaces a null model in place instead of adding a second member', () => {
    expect(readChatRequest(Buffer.from('{"model":null}')).withModel('m').toString()).toBe('{"model":"m"}');
  });

  it.each([
    '{"model":"a","model":"b"}',
    '{"model":"a","mod\\u0065l":"b"}',
    '{"model":"a","Model":"b"}',
    '{"MODEL":"b"}',
    '{"stream":false,"Stream":true}',
    '{"tools":[],"tools":[]}',
    '{"max_tokens":1,"MAX_TOKENS":2}',
    '{"store":false,"store":true}',
    '{"n":1,"N":9}',
    '{"stream_options":{},"stream_options":{}}',
    '{"\u017ftore":true}',
    '{"tool\u017f":[]}',
    '{"store":false,"\\u017ftore":true}',
  ])('refuses an interpreted field that could be read in two ways: %s', (body) => {
    expect(codeOf(body)).toBe('ambiguous_field');
  });

  it.each([
    '',
    '[]',
    '"x"',
    'null',
    '{',
    '{"a":1}}',
    '\ufeff{}',
    '{"model":1}',
    '{"stream":"yes"}',
    '{"model":["a"]}',
    `{"model":"${'m'.repeat(257)}"}`,
    '{"model":"a\\nb"}',
    '{"model":"a\\u001b[2Jb"}',
    '{"model":"a\\u0085b"}',
  ])('refuses an invalid chat request: %j', (body) => {
    expect(codeOf(body)).toBe('validation_failed');
  });

  it('accepts a model name of 256 characters', () => {
    expect(readChatRequest(Buffer.from(JSON.stringify({ model: 'é'.repeat(256) }))).model).toHaveLength(256);
  });

  it('refuses bytes that are not UTF-8', () => {
    expect(codeOf(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]))).toBe('validation_failed');
  });

  it('accepts a duplicate field that the gateway does not interpret', () => {
    expect(codeOf('{"x_vendor":1,"x_vendor":2}')).toBeUndefined();
  });

  it.each([
    ['with unclosed brackets', '[[['],
    ['with an unterminated string', '{"a":"\\'],
  ])('refuses a body %s', (_name, body) => {
    expect(codeOf(body)).toBe('validation_failed');
  });

  it('accepts long strings and ordinary nesting', () => {
    expect(codeOf(JSON.stringify({ a: '[{"'.repeat(1_000_000), b: [[[[{ c: [1, 2] }]]]] }))).toBeUndefined();
  });

  it.each([
    ['{"a":1,"a":2}', 2],
    ['{"a":{"b":[{"c":1,"\\u0063":2}]}}', 4],
    ['{"a":{"b":1},"c":{"b":":{"}}', 4],
    ['{"__proto__":1,"a":{"__proto__":2}}', 3],
  ])('counts the members of all objects in the text: %s', (body, count) => {
    expect(readChatRequest(Buffer.from(body)).memberCount).toBe(count);
  });

  it('lends its value once, and not after the model was replaced', () => {
    const request = readChatRequest(Buffer.from('{"model":"m","n":2}'));
    expect(request.takeValue()).toEqual({ model: 'm', n: 2 });
    expect(() => request.takeValue()).toThrow('released');
    const sent = readChatRequest(Buffer.from('{"model":"m"}'));
    sent.withModel('m');
    expect(() => sent.takeValue()).toThrow('released');
  });
});
