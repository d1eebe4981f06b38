import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What becomes of a call: passed on, answered here without being passed on, or held unanswered. */
type RelayDecision = 'pass' | { answer: number } | 'hold';

export interface Relay {
  /** Keycloak's address by way of the relay. */
  url: string;
  /** Decides on each call, before it is passed on; a call waits for its verdict. */
  before(decide: (call: IncomingMessage) => RelayDecision | Promise<RelayDecision>): void;
  /** Decides on each answer, after Keycloak has done the work. */
  after(decide: (call: IncomingMessage) => RelayDecision | Promise<RelayDecision>): void;
  /** Decides nothing any more: everything is passed on. */
  passAll(): void;
  close(): Promise<void>;
}

/** Stands between the app and the real Keycloak, so that a test can fail one call at the moment it means. */
export async function createRelay(keycloakUrl: string): Promise<Relay> {
  let decideBefore: (call: IncomingMessage) => RelayDecision | Promise<RelayDecision> = () => 'pass';
  let decideAfter: (call: IncomingMessage) => RelayDecision | Promise<RelayDecision> = () => 'pass';
  const server = createServer((call, reply) => {
    void Promise.resolve(decideBefore(call)).then((verdict) => {
      if (verdict === 'hold') return;
      if (verdict === 'pass') forwardCall(keycloakUrl, call, reply, (seen) => decideAfter(seen));
      else {
        call.resume();
        reply.writeHead(verdict.answer).end();
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    before(decide) {
      decideBefore = decide;
    },
    after(decide) {
      decideAfter = decide;
    },
    passAll() {
      decideBefore = decideAfter = () => 'pass';
    },
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

function forwardCall(
  keycloakUrl: string,
  call: IncomingMessage,
  reply: ServerResponse,
  decideAfter: (call: IncomingMessage) => RelayDecision | Promise<RelayDecision>,
): void {
  const onward = request(new URL(call.url ?? '/', keycloakUrl), {
    method: call.method,
    headers: { ...call.headers, host: new URL(keycloakUrl).host },
    agent: false,
  });
  onward.on('error', () => reply.destroy());
  onward.on('response', (answer) => {
    void Promise.resolve(decideAfter(call)).then((verdict) => {
      if (verdict === 'pass') {
        reply.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(reply);
        return;
      }
      answer.resume();
      if (verdict !== 'hold') reply.writeHead(verdict.answer).end();
    });
  });
  call.pipe(onward);
}
