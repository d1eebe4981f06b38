import { describe, expect, it } from '@jest/globals';
import { openAiChat } from '../../../src/gateway/surfaces/openai-chat/surface.ts';
import { createStreamCheck } from '../../../src/gateway/upstream/stream-events.ts';
import { createRedactor } from '../../../src/lib/redact.ts';

const SECRET = 'sk-or-v1/the+secret=of-the-system';
const options = { surface: openAiChat, redact: createRedactor([SECRET]), isPublic: true, choiceCount: 1 };
const check = (text: string, isPublic = true) =>
  createStreamCheck({ ...options, isPublic })
    .check(Buffer.from(text))
    .bytes.toString();

const chunk = `{"choices":[{"index":0,"delta":{"content":"${SECRET}"}}]}`;
const unicode = Array.from(SECRET, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`).join('');

describe('an event from a public address', () => {
  it.each([
    `data: ${chunk}\n\n`,
    `: comment\n\nevent: x\r\nid: 7\r\ndata:  ${chunk}\r\n\r\n`,
    `data: {"choices":[{"index":0,"delta":{"content":"${unicode}"}}],"error":null}\n\n`,
    `data: {"choices":[{"index":0,"delta":{"content":"\\u0022error\\u0022 \\"error\\""}}]}\n\n`,
    'data: {"choices":[],"usage":{"x":1}}\n\n',
    'data: {"choices": [],"new": 1.0}\n\n',
    'data: {"choices": [{"new": 1.0}]}\n\n',
    'data: [DONE]\n\n',
  ])('keeps its bytes when it is a successful response: %j', (text) => {
    expect(check(text)).toBe(text);
  });

  it.each([
    `data: {"error":{"message":"${SECRET}"}}`,
    `data: {"error":{"message":"${SECRET.replaceAll('+', '\\u002B').replaceAll('/', '\\/')}"}}`,
    `data: {"error":{"message":"${unicode}"}}`,
    `data: {"\\u0065rror":{"message":"${unicode}"}}`,
    `data: {"error":{"message":"x","${unicode}":1}}`,
    `data: {"error":"${unicode}"}`,
    `data: {"message":"${unicode}"}`,
    `data: {"detail":[{"msg":"${unicode}"}]}`,
    `data: [{"error":{"message":"${unicode}"}}]`,
    `data: {"type":"other","text":"${unicode}"}`,
    `data: {"choices":[{"index":0,"delta":{},"error":{"message":"${unicode}"}}]}`,
    `data: {"choices":[{"index":0,"delta":{"content":"${unicode}"}}],"error":{"code":1}}`,
    `event: error\ndata: {"message":"${unicode}"}`,
    `event: error\ndata: {"choices":[{"index":0,"delta":{"content":"${unicode}"}}]}`,
    `event: error\r\ndata: {"reason":\r\ndata: "${unicode}"}`,
    `event:error\ndata: the key ${SECRET}`,
    `data: "${unicode}"`,
    `data: not JSON ${unicode}`,
    `data: {"error": "cut ${unicode}`,
    `: ${SECRET}\ndata: ${chunk.replace(SECRET, 'x')}`,
    `event: ${SECRET}\ndata: ${chunk.replace(SECRET, 'x')}`,
    `{"error":{"message":"${unicode}"}}`,
    SECRET,
  ])('contains no secret in any form when it is anything else: %s', (text) => {
    const sent = check(`${text}\n\n`);
    expect(sent).not.toContain(SECRET);
    expect(
      sent.replaceAll(/\\u([0-9a-f]{4})|\\(?=\/)/gi, (_, hex: string | undefined) =>
        hex === undefined ? '' : String.fromCharCode(Number.parseInt(hex, 16)),
      ),
    ).not.toContain(SECRET);
    expect(sent === '' || sent.endsWith('\n\n')).toBe(true);
  });

  it('keeps its type and its other members when it is an error', () => {
    const text = `id: 1\nevent: error\ndata: {"error" : {"message":"${unicode}","code":"own","extra":[1]}}\n\n`;
    expect(check(text)).toBe('event: error\ndata: {"error":{"message":"***","code":"own","extra":[1]}}\n\n');
  });

  it('keeps its bytes beside an error in the same frames', () => {
    expect(check(`data:  ${chunk}\n\ndata: {"error":"${SECRET}"}\n\n: c\n\n`)).toBe(
      `data:  ${chunk}\n\ndata: {"error":"***"}\n\n: c\n\n`,
    );
  });

  it('is dropped after the last event of the protocol, and when the connection ended within it', () => {
    expect(check('data: [DONE]\n\ndata: more\n\n')).toBe('data: [DONE]\n\n');
    expect(check('data: [DONE]')).toBe('data: [DONE]\n\n');
    expect(check(`data: ${chunk}\n`)).toBe(`data: ${chunk}\n\n`);
    expect(check('data: {"choices":[{"ind')).toBe('');
  });

  it('loses comments that are too long to be searched', () => {
    const comment = `: ${'x'.repeat(16 * 1024)}\n`;
    expect(check(`${comment}\n${comment}data: ${chunk}\n\n`)).toBe(`data: ${chunk}\n\n`);
  });

  it('cannot be an error over the size limit', () => {
    const long = `data: {"error":"${'x'.repeat(256 * 1024)}"}\n\n`;
    expect(() => check(long)).toThrow(expect.objectContaining({ code: 'upstream_malformed' }));
  });
});

describe('an event from a private address', () => {
  it('is reduced to data of the protocol', () => {
    expect(check(`: inside\nid: inside\nevent: inside\ndata: ${chunk}\n\n: inside\n\n`, false)).toBe(
      `data: ${chunk}\n\n`,
    );
    expect(check('id: inside\ndata: [DONE]\n\n', false)).toBe('data: [DONE]\n\n');
  });

  it('is an error of the protocol without a secret, also when it has choices', () => {
    for (const text of [
      `{"error":{"message":"bad ${unicode}","data":"inside"},"more":"inside"}`,
      `{"choices":[{"index":0,"delta":{}}],"error":{"message":"bad ${unicode}","data":"inside"}}`,
      `{"choices":[{"index":0,"delta":{},"error":{"message":"bad ${unicode}"},"data":"inside"}]}`,
    ]) {
      expect(check(`event: inside\ndata: ${text}\n\n`, false)).toBe(
        'data: {"error":{"message":"bad ***","type":null,"param":null,"code":null}}\n\n',
      );
    }
  });

  it.each([
    '{"secret":"inside"}',
    '"inside"',
    'inside',
    '{"error":true,"data":"inside"}',
    '{"choices":["inside"]}',
  ])('ends the stream when it is no event of the protocol: %s', (data) => {
    expect(() => check(`data: ${data}\n\n`, false)).toThrow(
      expect.objectContaining({ code: 'upstream_malformed' }),
    );
  });
});
