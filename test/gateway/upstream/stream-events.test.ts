import { Readable } from 'node:stream';
import { describe, expect, it } from '@jest/globals';
import { createAnswerProgress } from '../../../src/gateway/answer-progress.ts';
import type { Surface } from '../../../src/gateway/surface.ts';
import { anthropicMessages } from '../../../src/gateway/surfaces/anthropic-messages/surface.ts';
import { openAiChat } from '../../../src/gateway/surfaces/openai-chat/surface.ts';
import { readSseEvents } from '../../../src/gateway/upstream/sse-reader.ts';
import { createStreamCheck } from '../../../src/gateway/upstream/stream-events.ts';
import { createRedactor } from '../../../src/lib/redact.ts';

const SECRET = 'sk-or-v1/the+secret=of-the-system';
const redact = createRedactor([SECRET]);
const NO_LIMITS = { eventBytes: Infinity, streamBytes: Infinity };

/** What the client receives of a stream. */
async function check(text: string, isPublic = true, surface: Surface = openAiChat): Promise<string> {
  const progress = surface.prepareProgress({})();
  const answer = createAnswerProgress(surface);
  const stream = createStreamCheck({ surface, redact, isPublic, progress, answer });
  let sent = '';
  for await (const events of readSseEvents(Readable.from([Buffer.from(text)]), NO_LIMITS)) {
    const { bytes, isDone } = stream.check(events);
    sent += bytes.toString();
    if (isDone) break;
  }
  return sent;
}

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
    'data: {"choices": [],"error": null,"errors": [],"error_code": 0,"message": "","detail": null}\n\n',
    'data: {"choices": [{"index":0,"delta":{},"error":null}],"message":"x"}\n\n',
    'data: {"choices": [{"new": 1.0}]}\n\n',
    'data: [DONE]\n\n',
  ])('keeps its bytes when it is a successful response: %j', async (text) => {
    expect(await check(text)).toBe(text);
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
    ...[SECRET, unicode].flatMap((secret) => [
      `data: {"choices":[],"code":401,"message":"Incorrect API key: ${secret}"}`,
      `data: {"choices":[],"detail":"bad ${secret}","status":401}`,
      `data: {"choices":[],"Detail":[{"msg":"bad ${secret}"}]}`,
      `data: {"choices":[],"msg":"bad ${secret}"}`,
      `data: {"choices":[],"errors":[{"message":"bad ${secret}"}]}`,
      `data: {"choices":[],"error_message":"bad ${secret}"}`,
      `data: {"choices":[],"ErrorText":"bad ${secret}"}`,
      `data: {"choices":[{"delta":{"content":""}}],"errors":["bad ${secret}"]}`,
      `data: {"choices":[{"delta":{"content":""},"error_message":"bad ${secret}"}]}`,
      `data: {"choices":[{"delta":{"content":""},"finish_reason":"error","native_error":"bad ${secret}"}]}`,
      `event: Error\ndata: {"choices":[{"index":0,"delta":{"content":"${secret}"}}]}`,
      `event:  error\ndata: {"choices":[{"index":0,"delta":{"content":"${secret}"}}]}`,
      `event: \tERROR \ndata: {"choices":[{"index":0,"delta":{"content":"${secret}"}}]}`,
    ]),
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
  ])('contains no secret in any form when it is anything else: %s', async (text) => {
    const sent = await check(`${text}\n\n`);
    expect(sent).not.toContain(SECRET);
    expect(
      sent.replaceAll(/\\u([0-9a-f]{4})|\\(?=\/)/gi, (_, hex: string | undefined) =>
        hex === undefined ? '' : String.fromCharCode(Number.parseInt(hex, 16)),
      ),
    ).not.toContain(SECRET);
    expect(sent === '' || sent.endsWith('\n\n')).toBe(true);
  });

  it('keeps its type and its other members when it is an error', async () => {
    const text = `id: 1\nevent: error\ndata: {"error" : {"message":"${unicode}","code":"own","extra":[1]}}\n\n`;
    expect(await check(text)).toBe(
      'event: error\ndata: {"error":{"message":"***","code":"own","extra":[1]}}\n\n',
    );
  });

  it.each([
    ['data: {"error":"bad"}\n\n', 'data: {"error":"bad"}\n\n'],
    ['event: error\ndata: bad\n\n', 'event: error\ndata: bad\n\n'],
    ['data: {"detail":"bad"}\n\n', 'data: {"detail":"bad"}\n\n'],
  ])('keeps its bytes before an error, and is dropped after it: %j', async (error, sent) => {
    expect(await check(`data:  ${chunk}\n\n${error}: c\n\ndata: ${chunk}\n\n${error}`)).toBe(
      `data:  ${chunk}\n\n${sent}`,
    );
  });

  it('passes after an event that is neither a response nor an error', async () => {
    const other = 'data: {"type":"ping"}\n\n';
    expect(await check(`${other}data: ${chunk}\n\n`)).toBe(`${other}data: ${chunk}\n\n`);
  });

  it('is dropped after the last event of the protocol, and when the connection ended within it', async () => {
    expect(await check('data: [DONE]\n\ndata: more\n\n')).toBe('data: [DONE]\n\n');
    expect(await check('data: [DONE]')).toBe('data: [DONE]\n\n');
    expect(await check(`data: ${chunk}\n`)).toBe(`data: ${chunk}\n\n`);
    expect(await check('data: {"choices":[{"ind')).toBe('');
  });

  it('loses comments that are too long to be searched', async () => {
    const comment = `: ${'x'.repeat(16 * 1024)}\n`;
    expect(await check(`${comment}\n${comment}data: ${chunk}\n\n`)).toBe(`data: ${chunk}\n\n`);
  });

  it('loses the comments of a stream that are longer than 1 MB together', async () => {
    const comment = `: ${'x'.repeat(8 * 1024)}\n\n`;
    const sent = await check(`${comment.repeat(200)}: last\n\nid: 1\ndata: ${chunk}\n\n`);
    expect(sent.endsWith(`${comment}data: ${chunk}\n\n`)).toBe(true);
    expect(sent.length).toBeLessThan(1024 * 1024 + 500);
    expect(sent.length).toBeGreaterThan(1000 * 1024);
  });

  it('cannot be one of many that are no response and exceed 1 MB together', async () => {
    const other = `data: {"other":"${'x'.repeat(200 * 1024)}"}\n\n`;
    expect(await check(other.repeat(5))).toBe(other.repeat(5));
    await expect(check(other.repeat(6))).rejects.toMatchObject({ code: 'upstream_malformed' });
  });

  it('cannot be an error over the size limit', async () => {
    const long = `data: {"error":"${'x'.repeat(256 * 1024)}"}\n\n`;
    await expect(check(long)).rejects.toMatchObject({ code: 'upstream_malformed' });
  });
});

describe('an event from a private address', () => {
  it('is reduced to data of the protocol', async () => {
    expect(await check(`: inside\nid: inside\nevent: inside\ndata: ${chunk}\n\n: inside\n\n`, false)).toBe(
      `data: ${chunk}\n\n`,
    );
    expect(await check('id: inside\ndata: [DONE]\n\n', false)).toBe('data: [DONE]\n\n');
  });

  it('is an error of the protocol without a secret, also when it has choices', async () => {
    for (const text of [
      `{"error":{"message":"bad ${unicode}","data":"inside"},"more":"inside"}`,
      `{"choices":[{"index":0,"delta":{}}],"error":{"message":"bad ${unicode}","data":"inside"}}`,
      `{"choices":[{"index":0,"delta":{},"error":{"message":"bad ${unicode}"},"data":"inside"}]}`,
    ]) {
      expect(await check(`event: inside\ndata: ${text}\n\n`, false)).toBe(
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
  ])('ends the stream when it is no event of the protocol: %s', async (data) => {
    await expect(check(`data: ${data}\n\n`, false)).rejects.toMatchObject({ code: 'upstream_malformed' });
  });
});

describe('an event of a protocol whose events name their types', () => {
  const checkPrivate = (text: string) => check(text, false, anthropicMessages);
  const delta = `{"type":"content_block_delta","index":0,"delta":{"text":"${SECRET}"}}`;

  it('has its type and its data alone, from a private address', async () => {
    const sent = `: inside\nid: inside\nevent: inside\ndata: ${delta}\n\n: inside\n\n`;
    expect(await checkPrivate(sent)).toBe(`event: content_block_delta\ndata: ${delta}\n\n`);
    expect(await checkPrivate('data: {"type":"message_stop"}\n\ndata: inside\n\n')).toBe(
      'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    );
  });

  it('is an error of the protocol without a secret, in any shape and from any address', async () => {
    const received =
      'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"bad ***"}}\n\n';
    const sent = `data: {"error":{"message":"bad ${unicode}","data":"inside"},"more":"inside"}\n\n`;
    expect(await checkPrivate(sent)).toBe(received);
    expect(await check(`event: error\ndata: bad ${SECRET}\n\n`, true, anthropicMessages)).toBe(received);
  });

  it('ends the stream when it has another type, from a private address', async () => {
    const sent = 'event: x\ndata: {"type":"inside"}\n\n';
    await expect(checkPrivate(sent)).rejects.toMatchObject({ code: 'upstream_malformed' });
    expect(await check(sent, true, anthropicMessages)).toBe(sent);
  });
});
