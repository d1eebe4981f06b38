import type { LoadAttack } from './attack.ts';
import { CLIENTS, MEMBERS } from './attackers/many-json-members.ts';

export const manyJsonMembers: LoadAttack = {
  name: `${CLIENTS} clients of one user that send JSON with ${MEMBERS} members`,
  prepare: ({ url }, { session }) =>
    Promise.resolve({ load: { attacker: 'many-json-members', settings: { url, session } } }),
};
