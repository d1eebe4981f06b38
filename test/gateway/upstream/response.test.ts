import { PassThrough } from 'node:stream';
import { afterEach, expect, it, jest } from '@jest/globals';
import { classifyResponse, toResponseLimits } from '../../../src/gateway/upstream/response.ts';
import { unauthenticated } from '../../../src/lib/errors.ts';
import { openAiChat } from '../../../src/gateway/surfaces/openai-chat/surface.ts';

afterEach(() => {
  jest.useRealTimers();
});

const options = {
  surface: openAiChat,
  isStreaming: false,
  limits: toResponseLimits({ isUserSupplied: false }),
  reservation: {
    userId: 'user',
    beginUpload: () => ({ received: () => undefined, [Symbol.dispose]: () => undefined }),
    add: () => undefined,
    keepOnly: () => undefined,
  },
  signal: new AbortController().signal,
};

it.each([
  ['stalls', ''],
  ['arrives byte by byte', 'x'],
])('the body of an error that %s is waited for 10 s', async (_name, chunk) => {
  jest.useFakeTimers({ doNotFake: ['nextTick', 'setImmediate', 'queueMicrotask'] });
  const body = new PassThrough();
  const response = { status: 503, headers: {}, body, isFromPublicAddress: true };
  const classified = classifyResponse(response, options);
  body.write('{"error":"');
  for (let second = 0; second < 10; second += 1) {
    expect(body.destroyed).toBe(false);
    if (chunk !== '') body.write(chunk);
    await jest.advanceTimersByTimeAsync(1_000);
  }
  expect(body.destroyed).toBe(true);
  expect(await classified).toMatchObject({ status: 503, otherBody: 'an incomplete body' });
});

it('the end of the request while the body of an error is read is no answer of the provider', async () => {
  const body = new PassThrough();
  const classified = classifyResponse({ status: 503, headers: {}, body, isFromPublicAddress: true }, options);
  const reason = unauthenticated();
  body.destroy(reason);
  await expect(classified).rejects.toBe(reason);
});
