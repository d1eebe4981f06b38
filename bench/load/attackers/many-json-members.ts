import type { BeginAttack } from '../attacker.ts';
import { repeat, send, type AttackingUser } from './user.ts';

export const MEMBERS = 900_000;
export const CLIENTS = 6;

/** One for each parser: a chat, and a run whose variables have invalid names. */
function createBodies(): [path: string, body: string][] {
  const members = (count: number) => Array.from({ length: count }, (_, at) => `"-${at}":""`).join(',');
  return [
    ['/v1/chat/completions', `{"model":"gpt-4o","messages":[],"metadata":{${members(MEMBERS)}}}`],
    ['/api/v1/execution-servers/default/run', `{"language":"bash","code":"","env":{${members(60_000)}}}`],
  ];
}

export const begin: BeginAttack<AttackingUser> = (user) => {
  const bodies = createBodies();
  const clients = Array.from({ length: CLIENTS }, (_, client) => {
    const [path, body] = bodies[client % bodies.length] ?? ['', ''];
    return () => send(user, 'POST', path, body);
  });
  return repeat(clients);
};
