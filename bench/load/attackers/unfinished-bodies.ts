import type { Socket } from 'node:net';
import type { BeginAttack } from '../attacker.ts';
import { postWithoutReading } from '../raw-request.ts';
import { createTally, type AttackingUser } from './user.ts';

export const REQUESTS_OF_EACH = 4;
const BODY = Buffer.from(`{"model":"gpt-4o","messages":[],"user":"${'x'.repeat(31 * 1024 * 1024)}"}`);

export const begin: BeginAttack<{ users: AttackingUser[] }> = ({ users }) => {
  const stop = new AbortController();
  const sockets = new Set<Socket>();
  const statuses = createTally();

  /** A client whose upload was ended begins again. */
  function open({ url, session }: AttackingUser): void {
    const sentBytes = BODY.length - 1;
    const path = '/v1/chat/completions';
    const socket = postWithoutReading({ url }, { session, path, body: BODY, sentBytes });
    sockets.add(socket);
    socket.once('data', (head: Buffer) => {
      statuses.add(/^HTTP\/1\.1 (\d+)/.exec(head.toString('latin1'))?.[1] ?? 'no status');
    });
    socket.resume().once('close', () => {
      sockets.delete(socket);
      if (!stop.signal.aborted) setTimeout(open, 100, { url, session });
    });
  }

  for (const user of users) for (let n = 0; n < REQUESTS_OF_EACH; n += 1) open(user);
  return Promise.resolve(() => {
    stop.abort();
    const open = sockets.size;
    for (const socket of sockets) socket.destroy();
    return Promise.resolve(`${open} open uploads; responses: ${statuses.toString()}`);
  });
};
