import { describe, expect, it } from '@jest/globals';
import { admitSharedPayerBody, parseRequestBody } from '../../../../src/gateway/admission/request-body.ts';
import { embeddings } from '../../../../src/gateway/surfaces/embeddings/surface.ts';
import { isAppError } from '../../../../src/lib/errors.ts';
import { receivedBody } from '../../admission/received-body.ts';

/** The code and field of the refusal of a body that the system pays for; undefined when it passes unchanged. */
function refusal(body: object | string, extraFields: readonly string[] = []) {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  try {
    const admitted = admitSharedPayerBody(
      parseRequestBody(receivedBody(text), embeddings),
      embeddings,
      extraFields,
    );
    expect(admitted.dropped).toEqual([]);
    expect(admitted.body.byteLength()).toBe(Buffer.byteLength(text));
    return undefined;
  } catch (error) {
    if (!isAppError(error)) throw error;
    return [error.code, error.errors?.[0]?.path];
  }
}

const hello = { model: 'm', input: 'Hello' };

describe('a body that the system pays for', () => {
  it.each([
    hello,
    { ...hello, dimensions: 256, encoding_format: 'base64', user: 'u' },
    { ...hello, dimensions: null, encoding_format: null, user: null },
    { ...hello, input: ['a', 'b'] },
    { ...hello, input: [1, 2] },
    { ...hello, input: [[1], [2, 3]] },
    { ...hello, input: [] },
    { ...hello, input: Array.from({ length: 2_048 }, () => 'x') },
    { ...hello, input: Array.from({ length: 5_000 }, () => 7) },
    { model: 'm' },
  ])('passes: %j', (body) => {
    expect(refusal(body)).toBeUndefined();
  });

  it.each([
    ['an unknown field', { ...hello, input_type: 'query' }, 'field_not_allowed', 'input_type'],
    ['a stream', { ...hello, stream: true }, 'field_not_allowed', 'stream'],
    ['a steering field', { ...hello, api_base: 'http://x' }, 'field_not_allowed', 'api_base'],
    ['an image', { ...hello, input: [{ image: 'https://x' }] }, 'validation_failed', 'input'],
    ['content', { ...hello, input: { content: [] } }, 'validation_failed', 'input'],
    ['texts and tokens', { ...hello, input: ['a', 1] }, 'validation_failed', 'input'],
    ['parts of tokens', { ...hello, input: [[0.5]] }, 'validation_failed', 'input'],
    [
      'too many texts',
      { ...hello, input: Array.from({ length: 2_049 }, () => 'x') },
      'validation_failed',
      'input',
    ],
    ['null', { ...hello, input: null }, 'validation_failed', 'input'],
    ['no dimensions', { ...hello, dimensions: 0 }, 'validation_failed', 'dimensions'],
    ['parts of dimensions', { ...hello, dimensions: 1.5 }, 'validation_failed', 'dimensions'],
    ['dimensions as text', { ...hello, dimensions: '256' }, 'validation_failed', 'dimensions'],
    ['too many dimensions', { ...hello, dimensions: 16_385 }, 'validation_failed', 'dimensions'],
    ['a list of formats', { ...hello, encoding_format: ['float'] }, 'validation_failed', 'encoding_format'],
    ['a user that is an object', { ...hello, user: {} }, 'validation_failed', 'user'],
  ])('is refused with %s', (_name, body, code, field) => {
    expect(refusal(body)).toEqual([code, field]);
  });

  it('is refused with two members of one name, also in a field of the operator', () => {
    expect(refusal('{"model":"m","input":"a","input":"b"}')).toEqual(['ambiguous_field', undefined]);
    const nested = '{"model":"m","input":"a","extra":[{"x":{"a":1,"a":2}}]}';
    expect(refusal(nested, ['extra'])).toEqual(['ambiguous_field', undefined]);
    expect(refusal({ ...hello, extra: [{ x: { a: 1 } }, 2] }, ['extra'])).toBeUndefined();
  });
});

describe('the model of a request', () => {
  it('is named once, in this spelling', () => {
    for (const body of ['{"model":"a","model":"b"}', '{"Model":"a"}'])
      expect(refusal(body)).toEqual(['ambiguous_field', 'model']);
  });

  it('does not make a request a stream, whatever the field "stream" is', () => {
    for (const stream of [true, 'yes', null])
      expect(
        parseRequestBody(receivedBody(JSON.stringify({ ...hello, stream })), embeddings).isStreaming,
      ).toBe(false);
  });
});

const list = (...data: unknown[]) => ({ object: 'list', data, model: 'm', usage: { total_tokens: 1 } });
const entry = { object: 'embedding', index: 0, embedding: [0.1] };

describe('a response', () => {
  it.each<[unknown, boolean, boolean]>([
    // Value, whether it is one from a public address, and from a private one.
    [list(entry), true, true],
    [list({ ...entry, embedding: 'AACAPw==' }), true, true],
    [list({ embedding: [0.1], index: 0 }), true, true],
    [list({ embedding: [0.1], object: 'embedding' }), true, true],
    [{ data: [entry] }, true, true],
    [list({ embedding: [0.1] }), true, false],
    [list({ ...entry, embedding: [[0.1]] }), true, false],
    [list({ ...entry, embedding: 'any text' }), true, false],
    [list({ ...entry, embedding: null }), true, false],
    [list(), true, false],
    [list(entry, { id: 'x' }), false, false],
    [list('x'), false, false],
    [{ data: {} }, false, false],
    [{ choices: [] }, false, false],
    [[entry], false, false],
    [null, false, false],
  ])('%j: %s, %s', (value, isPublic, isPrivate) => {
    expect([embeddings.isResponse(value, true), embeddings.isResponse(value, false)]).toEqual([
      isPublic,
      isPrivate,
    ]);
  });

  it.each<[unknown, boolean]>([
    [{ error: { message: 'no' } }, true],
    [{ ...list(entry), error: { message: 'no' } }, true],
    [[{ error: { message: 'no' } }], true],
    [{ object: 'error', message: 'no' }, true],
    [{ type: 'error' }, true],
    [{ ...list(), message: 'no' }, true],
    [{ ...list(entry), message: 'fine' }, false],
    [{ ...list(entry), error: null }, false],
    [list(entry), false],
    ['error', false],
  ])('reports an error: %j: %s', (value, expected) => {
    expect(embeddings.hasError(value)).toBe(expected);
  });
});
