import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { expect, it } from '@jest/globals';
import { limitUnreadBody } from '../../src/http/unread-body.ts';

const MB = 1024 * 1024;
/** A read from the connection, and its headers. */
const MARGIN = 256 * 1024;

const WAYS: [string, (received: IncomingMessage, response: ServerResponse) => void][] = [
  ['nothing has read', (_received, response) => response.writeHead(429).end('refused')],
  [
    'was read in part',
    (received, response) =>
      received.once('data', () => {
        response.writeHead(429).end('refused');
      }),
  ],
];

it.each(WAYS)('of a body that %s, at most 1 MB is read after the response', async (_way, respond) => {
  const paused = Promise.withResolvers<number>();
  const server = createServer((received, response) => {
    limitUnreadBody(received, response);
    received.once('pause', () => {
      paused.resolve(received.socket.bytesRead);
    });
    respond(received, response);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const headers = { 'content-length': 64 * MB };
  const sent = request({ port, host: '127.0.0.1', method: 'POST', headers }).on('error', () => undefined);
  sent.write(Buffer.alloc(32 * MB));
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  expect([response.statusCode, await text(response)]).toEqual([429, 'refused']);
  const bytesRead = await paused.promise;
  expect(bytesRead).toBeGreaterThanOrEqual(MB);
  expect(bytesRead).toBeLessThan(MB + MARGIN);
  sent.destroy();
  server.close();
});
