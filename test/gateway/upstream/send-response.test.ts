import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PassThrough } from 'node:stream';
import { afterEach, describe, expect, it, jest } from '@jest/globals';
import { fetch } from 'undici';
import { createAnswerProgress } from '../../../src/gateway/answer-progress.ts';
import { openAiChat } from '../../../src/gateway/surfaces/openai-chat/surface.ts';
import { createSseWriter } from '../../../src/http/sse.ts';
import { toResponseLimits } from '../../../src/gateway/upstream/response.ts';
import { sendResponse, type SendOutcome } from '../../../src/gateway/upstream/send-response.ts';

const KEEP_ALIVE_MS = 15_000;

afterEach(() => {
  jest.useRealTimers();
});

/** A client of a stream that the test writes. */
async function open() {
  const body = new PassThrough();
  const ended = Promise.withResolvers<SendOutcome>();
  const server = createServer((_request, response) => {
    const answer = { kind: 'stream', status: 200, headers: {}, body, isPublic: true } as const;
    const limits = { signal: new AbortController().signal, idleTimeoutMs: 1000 };
    const options = {
      ...limits,
      surface: openAiChat,
      requestId: 'r',
      redact: (text: string) => text,
      progress: openAiChat.prepareProgress({})(),
      answer: createAnswerProgress(openAiChat),
      events: createSseWriter(asExpress(response), { ...limits, keepAlive: ': keep-alive\n\n' }),
      limits: toResponseLimits({ isUserSupplied: false }),
      reservation: {
        userId: 'user',
        beginUpload: () => ({ received: () => undefined, [Symbol.dispose]: () => undefined }),
        add: () => undefined,
        keepOnly: () => undefined,
      },
      onHeaders: () => undefined,
    };
    sendResponse(answer, asExpress(response), options).then(ended.resolve, ended.reject);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const response = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  const reader = response.body?.getReader();
  const read = async () => Buffer.from((await reader?.read())?.value ?? []).toString();
  return { body, read, ended: ended.promise, [Symbol.dispose]: () => void server.close() };
}

/** Adds the only Express method that sendResponse uses. */
function asExpress(response: ServerResponse): Parameters<typeof sendResponse>[1] {
  const status = (code: number) => Object.assign(response, { statusCode: code });
  return Object.assign(response, { status }) as unknown as Parameters<typeof sendResponse>[1];
}

describe('an idle stream', () => {
  it('sends a comment after 15 s of silence, counted from the last frame', async () => {
    jest.useFakeTimers({
      doNotFake: ['nextTick', 'setImmediate', 'queueMicrotask', 'setTimeout', 'performance', 'Date'],
    });
    using stream = await open();
    stream.body.write('data: 1\n\n');
    expect(await stream.read()).toBe('data: 1\n\n');
    jest.advanceTimersByTime(KEEP_ALIVE_MS - 1);
    stream.body.write('data: 2\n\n');
    expect(await stream.read()).toBe('data: 2\n\n');
    jest.advanceTimersByTime(KEEP_ALIVE_MS - 1);
    stream.body.write('data: 3\n\n');
    expect(await stream.read()).toBe('data: 3\n\n');
    jest.advanceTimersByTime(KEEP_ALIVE_MS);
    expect(await stream.read()).toBe(': keep-alive\n\n');
    stream.body.end('data: [DONE]\n\n');
    expect(await stream.ended).toBe('done');
  });
});
