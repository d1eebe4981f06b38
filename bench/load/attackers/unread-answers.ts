import type { BeginAttack } from '../attacker.ts';
import { postWithoutReading, readStatus } from '../raw-request.ts';
import type { AttackingUser } from './user.ts';

export const CLIENTS = 16;

export const begin: BeginAttack<AttackingUser> = async ({ url, session }) => {
  const sockets = Array.from({ length: CLIENTS }, (_, client) => {
    const isStream = client % 2 === 1;
    const model = `custom/user-${isStream ? 'events' : 'whole'}`;
    const body = Buffer.from(JSON.stringify({ model, stream: isStream, messages: [] }));
    return postWithoutReading({ url }, { session, path: '/v1/chat/completions', body });
  });
  // A refusal is no load.
  for (const status of await Promise.all(sockets.map(readStatus)))
    if (status !== 200) throw new Error(`a chat was answered ${status}`);
  return () => {
    for (const socket of sockets) socket.destroy();
    return Promise.resolve(`${sockets.length} clients`);
  };
};
