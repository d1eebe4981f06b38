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
  const statuses = await Promise.all(sockets.map(readStatus));
  // 429: the user's answers fill the user's part of the memory. Another refusal, or nothing but refusals, is no load.
  const isLoad = statuses.includes(200) && statuses.every((status) => [200, 429].includes(status));
  if (!isLoad) throw new Error(`the chats were answered ${[...new Set(statuses)].join(', ')}`);
  const answered = statuses.filter((status) => status === 200);
  return () => {
    for (const socket of sockets) socket.destroy();
    return Promise.resolve(`${answered.length} of ${sockets.length} clients have an answer`);
  };
};
