import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What happens to a call: forwarded, answered with a status without being forwarded, or left unanswered. */
type RelayDecision = 'pass' | { answer: number } | 'hold';

export interface Relay {
  /** The relay's address, to be used as Keycloak's. */
  url: string;
  /** Decides on each call before it is forwarded. A call waits for its decision. */
  before(decide: (call: IncomingMessage) => RelayDecision | Promise<RelayDecision>): void;
  /** Decides on each response, after Keycloak has executed the call. */
  after(decide: (call: IncomingMessage) => RelayDecision | Promise<RelayDecision>): void;
  /** Resets both decisions: all calls are forwarded. */
  passAll(): void;
  close(): Promise<void>;
}

/** An HTTP proxy between the app and the real Keycloak, so that a test can fail one call at a chosen moment. */
export async function createRelay(keycloakUrl: string): Promise<Relay> {
  let decideBefore: (call: IncomingMessage) => RelayDecision | Promise<RelayDecision> = () => 'pass';
  let decideAfter: (call: IncomingMessage) => RelayDecision | Promise<RelayDecision> = () => 'pass';
  const server = createServer((call, reply) => {
    void Promise.resolve(decideBefore(call)).then((decision) => {
      if (decision === 'hold') return;
      if (decision === 'pass') forwardCall(keycloakUrl, call, reply, (forwarded) => decideAfter(forwarded));
      else {
        call.resume();
        reply.writeHead(decision.answer).end();
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
  const forwarded = request(new URL(call.url ?? '/', keycloakUrl), {
    method: call.method,
    headers: { ...call.headers, host: new URL(keycloakUrl).host },
    agent: false,
  });
  forwarded.on('error', () => reply.destroy());
  forwarded.on('response', (response) => {
    void Promise.resolve(decideAfter(call)).then((decision) => {
      if (decision === 'pass') {
        reply.writeHead(response.statusCode ?? 502, response.headers);
        response.pipe(reply);
        return;
      }
      response.resume();
      if (decision !== 'hold') reply.writeHead(decision.answer).end();
    });
  });
  call.pipe(forwarded);
}
