import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { connect } from 'node:net';
import OpenAI from 'openai';
import { startApp, type TestApp } from '../support/app.ts';

const MESSAGE = 'The base URL ends in /v1.';
const ANTHROPIC_MESSAGE = `${MESSAGE} For Anthropic's SDKs it has no /v1, since they append /v1/messages.`;

let app: TestApp;
beforeAll(async () => {
  app = await startApp();
});
afterAll(() => app.stop());

describe("a path of Anthropic's protocol under /v1 without a route", () => {
  it.each([
    ['POST', '/v1/messages/count'],
    ['GET', '/v1/messages/batches'],
    ['POST', '/v1/messages/batches/b/cancel'],
    ['POST', '/v1/complete'],
    ['POST', '/v1/v1/complete'],
  ])("is a 404 in Anthropic's shape: %s %s", async (method, path) => {
    const response = await app.call(path, method === 'POST' ? { method, json: { model: 'm' } } : { method });
    expect(response.status).toBe(404);
    expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
    expect(await response.json()).toEqual({
      type: 'error',
      error: { type: 'not_found_error', message: 'This address was not found.' },
      request_id: response.headers.get('x-request-id'),
    });
  });

  it.each([
    ['POST', '/v1/messages', 401, 'authentication_error'],
    ['POST', '/v1/messages/count_tokens', 401, 'authentication_error'],
    ['GET', '/v1/messages', 405, 'invalid_request_error'],
  ])('has the errors of its routes in that shape: %s %s', async (method, path, status, type) => {
    const response = await app.call(path, method === 'POST' ? { method, json: { model: 'm' } } : { method });
    expect([response.status, await response.json()]).toMatchObject([
      status,
      { type: 'error', error: { type } },
    ]);
  });

  it.each(['/v1/messagesx', '/v1/completions', '/v1/model/messages-1'])(
    "is not %s, which keeps OpenAI's shape",
    async (path) => {
      const response = await app.call(path, { method: 'POST', json: {} });
      expect(await response.json()).toMatchObject({ error: { code: 'not_found' } });
    },
  );
});

describe('a path of a protocol outside /v1 and /api', () => {
  it.each([
    ['POST', '/chat/completions'],
    ['POST', '/openai/chat/completions'],
    ['POST', '/v2/chat/completions'],
    ['POST', '/V1/chat/completions'],
    ['POST', '/v1beta/openai/chat/completions'],
    ['POST', '/completions'],
    ['POST', '/responses'],
    ['POST', '/gateway/responses'],
    ['POST', '/embeddings'],
    ['GET', '/models'],
    ['GET', '/chat/completions?a=b'],
  ])("is a 404 in OpenAI's shape that names the base URL: %s %s", async (method, path) => {
    const response = await app.call(path, method === 'POST' ? { method, json: { model: 'm' } } : { method });
    expect(response.status).toBe(404);
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
    expect(await response.json()).toMatchObject({
      error: { message: MESSAGE, type: 'invalid_request_error', code: 'not_found', param: null },
    });
  });

  it.each([
    ['POST', '/messages'],
    ['POST', '/anthropic/messages'],
    ['POST', '/anthropic/v1/messages'],
    ['POST', '/messages/count_tokens'],
    ['POST', '/v1/v1/messages'],
    ['POST', '/v1/v1/messages/count_tokens'],
  ])("is a 404 in Anthropic's shape that names the base URL: %s %s", async (method, path) => {
    const response = await app.call(path, { method, json: { model: 'm' } });
    expect(response.status).toBe(404);
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
    expect(await response.json()).toEqual({
      type: 'error',
      error: { type: 'not_found_error', message: ANTHROPIC_MESSAGE },
      request_id: response.headers.get('x-request-id'),
    });
  });

  it.each([
    '/api/v1/chat/completions',
    '/api/messages',
    '/api/v1/models',
    '/chat/completions/x',
    '/xmessages',
  ])('is not %s, which keeps the shape of the REST API', async (path) => {
    const response = await app.call(path, { method: 'POST', json: {} });
    expect(response.status).toBe(404);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
    expect(await response.text()).not.toContain('base URL');
  });

  it("reaches the user of OpenAI's SDK", async () => {
    const client = new OpenAI({ apiKey: 'none', baseURL: app.url, maxRetries: 0 });
    const create = client.chat.completions.create({ model: 'm', messages: [] });
    await expect(create).rejects.toThrow(`404 ${MESSAGE}`);
  });

  it('is refused under another host name, in the same shape', async () => {
    const socket = connect(app.config.port, '127.0.0.1');
    socket.end('POST /chat/completions HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n');
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await once(socket, 'close');
    expect(text).toMatch(/^HTTP\/1.1 421 /);
    expect(text).toContain('"code":"wrong_host"');
    expect(text).not.toContain(MESSAGE);
  });

  it('is answered without its body, which is not read', async () => {
    const socket = connect(app.config.port, '127.0.0.1');
    const head = `POST /chat/completions HTTP/1.1\r\nHost: localhost:${app.config.port}\r\n`;
    socket.write(`${head}Content-Length: 1000000000\r\n\r\n{`);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    socket.destroy();
    expect(answer.toString()).toMatch(/^HTTP\/1.1 404 /);
  });
});
