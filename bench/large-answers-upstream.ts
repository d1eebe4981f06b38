/** An upstream whose answers are as large as the gateway accepts. The model names the kind. */
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

const MB = 1024 * 1024;
const chunk = (bytes: number) =>
  `{"id":"x","choices":[{"index":0,"delta":{"content":"${'x'.repeat(bytes)}"}}]}`;

const whole = (bytes: number) =>
  `{"object":"chat.completion","choices":[{"index":0,"message":{"content":"${'x'.repeat(bytes)}"}}]}`;

async function sendWhole(response: ServerResponse, bytes: number): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(whole(bytes));
  await once(response, 'close');
}

async function sendEvents(response: ServerResponse, bytes: number): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (;;) if (!response.write(`data: ${chunk(bytes)}\n\n`)) await once(response, 'drain');
}

const ANSWERS: Record<string, (response: ServerResponse) => Promise<void>> = {
  short(response) {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end('{"object":"chat.completion","choices":[{"index":0,"message":{"content":"x"}}]}');
    return Promise.resolve();
  },
  whole: (response) => sendWhole(response, 31.5 * MB),
  /** Events of almost 8 MB. */
  events: (response) => sendEvents(response, 7.5 * MB),
  /** As large as is accepted from an address that a user brought. */
  'user-whole': (response) => sendWhole(response, 7.9 * MB),
  'user-events': (response) => sendEvents(response, 1.9 * MB),
  /** Almost 8 MB of an event that does not end. */
  async half(response) {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(`data: ${chunk(7.5 * MB)}`);
    await once(response, 'close');
  },
};

const server = createServer((request, response) => {
  let body = '';
  request.on('data', (part: Buffer) => (body += part.toString()));
  request.on('end', () => {
    const { model = '' } = JSON.parse(body || '{}') as { model?: string };
    const answer = ANSWERS[model];
    if (answer === undefined) response.writeHead(404).end('{}');
    else answer(response).catch(() => undefined);
  });
  response.on('error', () => undefined);
});
server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v1\n`);
});
