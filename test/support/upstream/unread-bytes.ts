import { existsSync, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** Linux lists connections with the bytes in their queues. */
const TABLES = ['/proc/net/tcp', '/proc/net/tcp6'].filter((file) => existsSync(file));
/** Where no table exists, the other side gets this long. */
const SETTLE_MS = 20;
const POLL_MS = 1;

/** Resolves when the other side of a connection on this machine has read all bytes that were sent to it. */
export async function untilRead(socket: Socket, signal: AbortSignal): Promise<void> {
  if (TABLES.length === 0) await delay(SETTLE_MS, undefined, { signal });
  else while (countUnreadBytes(socket) > 0) await delay(POLL_MS, undefined, { signal });
}

function countUnreadBytes({ localPort = 0, remotePort = 0, writableLength }: Socket): number {
  const toHex = (port: number) => port.toString(16).toUpperCase().padStart(4, '0');
  const [local, remote] = [toHex(localPort), toHex(remotePort)];
  const queued = TABLES.flatMap((file) => readFileSync(file, 'utf8').trim().split('\n').slice(1)).map(
    (line) => {
      const [, from = '', to = '', , queues = ''] = line.trim().split(/\s+/);
      const [unsent = 0, unread = 0] = queues.split(':').map((hex) => parseInt(hex, 16));
      if (from.endsWith(`:${local}`) && to.endsWith(`:${remote}`)) return unsent;
      return from.endsWith(`:${remote}`) && to.endsWith(`:${local}`) ? unread : 0;
    },
  );
  return queued.reduce((sum, bytes) => sum + bytes, writableLength);
}
