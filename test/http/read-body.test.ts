import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import express, { type Request } from 'express';
import { createBodyBudget } from '../../src/http/body-budget.ts';
import { readBody } from '../../src/http/read-body.ts';
import { AppError, isAppError } from '../../src/lib/errors.ts';
import { measureRetainedBytes } from '../support/retained-bytes.ts';
import { until } from '../support/until.ts';

const MAX_BODY_BYTES = 1024 * 1024;

const budget = createBodyBudget();
const app = express();
/** The next body that is read. */
let body = Promise.withResolvers<Buffer>();
let receivedBytes = 0;
app.post('/', async (request: Request, response) => {
  const { promise, resolve, reject } = body;
  request.on('data', (chunk: Buffer) => (receivedBytes += chunk.length));
  const reservation = budget.createReservation('user', response);
  await readBody(request, { maxBytes: MAX_BODY_BYTES, reservation }).then(resolve, reject);
  await promise.catch(() => undefined);
  response.end();
});
const refused = Promise.withResolvers<Request>();
app.post('/refused', async (request: Request, response) => {
  const refuse = () => new AppError('validation_failed', 'refused');
  const options = {
    maxBytes: MAX_BODY_BYTES,
    reservation: budget.createReservation('user', response),
    inspect: refuse,
  };
  await readBody(request, options).catch(() => undefined);
  refused.resolve(request);
  response.end();
});
app.get('/open', () => undefined);
const server = createServer(app);
let port: number;

beforeAll(async () => {
  await once(server.listen(0, '127.0.0.1'), 'listening');
  port = (server.address() as AddressInfo).port;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

/** Sends the head of a request and chunks of these sizes, whose bytes count up; not the end. */
function sendChunks(sizes: readonly number[]): { socket: Socket; sent: Buffer } {
  const sent = Buffer.from(
    Array.from({ length: sizes.reduce((a, b) => a + b, 0) }, (_, index) => index % 251),
  );
  const socket = connect(port, '127.0.0.1').on('error', () => undefined);
  const pieces = [Buffer.from('POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n')];
  let at = 0;
  for (const size of sizes) {
    pieces.push(Buffer.from(`${size.toString(16)}\r\n`), sent.subarray(at, at + size), Buffer.from('\r\n'));
    at += size;
  }
  socket.write(Buffer.concat(pieces));
  return { socket, sent };
}

const END = '0\r\n\r\n';

describe('a body in chunks', () => {
  it.each([
    ['of one byte', Array<number>(1_000).fill(1)],
    ['below, of and above the size of a block', [4_095, 1, 4_096, 1, 4_097, 4_095, 2, 1, 8_192, 3]],
    ['of many sizes', Array.from({ length: 150 }, (_, index) => 1 + ((index * 37) % 700))],
  ])('%s is read unchanged', async (_name, sizes) => {
    body = Promise.withResolvers();
    const { socket, sent } = sendChunks(sizes);
    socket.write(END);
    expect((await body.promise).equals(sent)).toBe(true);
    socket.destroy();
  });

  it('of one byte takes a few times the memory of its bytes until it is complete', async () => {
    const [bodies, chunks] = [20, 3_900];
    receivedBytes = 0;
    const before = await measureRetainedBytes();
    const sockets = Array.from({ length: bodies }, () => sendChunks(Array<number>(chunks).fill(1)).socket);
    await until(() => receivedBytes === bodies * chunks);
    const retained = (await measureRetainedBytes()) - before;
    for (const socket of sockets) socket.destroy();
    // Blocks of 4 KB, and what a request and two ends of a connection take.
    expect(retained / bodies).toBeLessThan(100_000);
  });

  it('is refused when its chunks are many and small', async () => {
    body = Promise.withResolvers();
    const { socket } = sendChunks(Array<number>(5_000).fill(2));
    const error: unknown = await body.promise.catch((caught: unknown) => caught);
    expect(isAppError(error) && [error.code, error.detail]).toEqual([
      'validation_failed',
      'The body arrives in too many small chunks. Send it in chunks of at least a kilobyte.',
    ]);
    socket.destroy();
  });

  it('is accepted when its chunks are many and 64 bytes on average', async () => {
    body = Promise.withResolvers();
    const { socket, sent } = sendChunks(
      Array.from({ length: 5_000 }, (_, index) => (index % 2 === 0 ? 1 : 128)),
    );
    socket.write(END);
    expect((await body.promise).equals(sent)).toBe(true);
    socket.destroy();
  });
});

describe('a refused body', () => {
  it('is not read beyond the limit, also while its response waits behind another one', async () => {
    const head = 'HTTP/1.1\r\nhost: localhost\r\n';
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    socket.write(`GET /open ${head}\r\nPOST /refused ${head}transfer-encoding: chunked\r\n\r\n`);
    const size = 16 * MAX_BODY_BYTES;
    socket.write(Buffer.concat([Buffer.from(`${size.toString(16)}\r\n`), Buffer.alloc(size)]));
    const request = await refused.promise;
    if (!request.isPaused()) await once(request, 'pause');
    expect(request.socket.bytesRead).toBeGreaterThan(MAX_BODY_BYTES);
    expect(request.socket.bytesRead).toBeLessThan(1.5 * MAX_BODY_BYTES);
    socket.destroy();
  });
});
