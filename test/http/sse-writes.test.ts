import { once } from 'node:events';
import { createServer, get, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { expect, it } from '@jest/globals';
import express, { type Response } from 'express';
import { createSseWriter, toSseEvent, type SseWriter } from '../../src/http/sse.ts';

type Write = (...args: unknown[]) => void;

/** Counts what a connection gives to the system. */
function countWrites(socket: Socket): () => number {
  let count = 0;
  const target = socket as unknown as { _write: Write; _writev: Write };
  for (const name of ['_write', '_writev'] as const) {
    const write = target[name].bind(socket);
    target[name] = (...args) => {
      count += 1;
      write(...args);
    };
  }
  return () => count;
}

/** @returns the number of writes, and what the client received. */
async function serve(
  send: (events: SseWriter, response: Response) => Promise<void>,
): Promise<[number, string]> {
  const app = express();
  app.get('/', async (_request, response) => {
    const { signal } = new AbortController();
    await send(
      createSseWriter(response, { keepAlive: ': idle\n\n', signal, idleTimeoutMs: 5_000 }),
      response,
    );
  });
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const connected = once(server, 'connection') as Promise<[Socket]>;
    const answered = once(get({ port: (server.address() as AddressInfo).port }), 'response');
    const count = countWrites((await connected)[0]);
    const [response] = (await answered) as [IncomingMessage];
    const text = (await response.setEncoding('utf8').toArray()).join('');
    return [count(), text];
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

it('sends the headers and the first events in one write', async () => {
  const [count, text] = await serve(async (events) => {
    events.begin();
    await events.write(toSseEvent('first'));
    events.end(toSseEvent('second'));
  });
  expect([count, text]).toEqual([1, 'data: first\n\ndata: second\n\n']);
});

it('sends the headers when no event follows at once', async () => {
  const [count, text] = await serve(async (events, response) => {
    events.begin();
    expect(response.headersSent).toBe(true);
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    expect(response.socket?.writableLength).toBe(0);
    events.end(toSseEvent('late'));
  });
  expect([count, text]).toEqual([2, 'data: late\n\n']);
});

it('waits for a client that does not read, also with the first events', async () => {
  const large = 'x'.repeat(1024 * 1024);
  const [, text] = await serve(async (events) => {
    events.begin();
    for (let count = 0; count < 4; count += 1) await events.write(toSseEvent(large));
    events.end();
  });
  expect(text).toHaveLength(4 * (large.length + 'data: \n\n'.length));
});
