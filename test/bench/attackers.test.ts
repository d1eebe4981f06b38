import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from '@jest/globals';
import { begin } from '../../bench/load/attackers/unread-answers.ts';
import { repeat, send } from '../../bench/load/attackers/user.ts';

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

/** An app on loopback that is stopped after the test. */
async function startApp(listener: RequestListener): Promise<{ url: string; session: string }> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanups.push(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, session: 'a-session' };
}

describe('repeated requests', () => {
  it('are a load once each client has a response', async () => {
    let answerSlow: () => void = () => undefined;
    const answers: string[] = [];
    const app = await startApp((request, response) => {
      const answer = () => {
        answers.push(request.url ?? '');
        response.end();
      };
      if (request.url === '/slow' && !answers.includes('/slow')) answerSlow = answer;
      else answer();
      if (request.url === '/fast' && answers.length === 1) setImmediate(answerSlow);
    });
    const end = await repeat(['/slow', '/fast'].map((path) => () => send(app, 'GET', path)));
    expect(answers).toEqual(expect.arrayContaining(['/fast', '/slow']));
    expect(await end()).toMatch(/^responses: \d+ x 200$/);
  });

  it('are no load when one has no response', async () => {
    const app = await startApp((request) => request.socket.destroy());
    await expect(repeat([() => send(app, 'GET', '/')])).rejects.toThrow();
  });
});

describe('clients that do not read', () => {
  it('are a load once each has the status of its response', async () => {
    let requests = 0;
    const app = await startApp((_request, response) => {
      requests += 1;
      response.write('x'.repeat(1_000_000));
    });
    const end = await begin(app);
    expect(await end()).toBe(`${requests} of ${requests} clients have an answer`);
  });

  it('are a load when the memory of their user is full for some', async () => {
    let requests = 0;
    const app = await startApp((_request, response) => {
      requests += 1;
      if (requests > 10) response.writeHead(429).end();
      else response.write('x');
    });
    const end = await begin(app);
    expect(await end()).toBe(`10 of ${requests} clients have an answer`);
  });

  it.each([
    ['are refused', 'answered 403', (response) => response.writeHead(403).end()],
    ['are all refused for the memory', 'answered 429', (response) => response.writeHead(429).end()],
    ['have no response', 'without a response', (response) => response.destroy()],
  ] as [string, string, (response: Parameters<RequestListener>[1]) => unknown][])(
    'are no load when they %s',
    async (_name, message, answer) => {
      const app = await startApp((_request, response) => void answer(response));
      await expect(begin(app)).rejects.toThrow(message);
    },
  );
});
