import type { BeginAttack } from '../attacker.ts';
import { repeat, send, type AttackingUser } from './user.ts';

/** The account does not accept the keys, so that each run decrypts its key again. */
export const begin: BeginAttack<AttackingUser & { servers: string[] }> = ({ servers, ...user }) => {
  const runs = servers.map((id) => () => {
    const headers = { accept: 'application/json' };
    const path = `/api/v1/execution-servers/${id}/run`;
    return send(user, 'POST', path, JSON.stringify({ command: 'true' }), headers);
  });
  return repeat(runs);
};
