import { createServerClient } from '../../test/support/servers.ts';
import type { LoadAttack } from './attack.ts';
import { REQUESTS_OF_EACH } from './attackers/unfinished-bodies.ts';
import { createChatProbe, startUpstreamProcess } from './chat-probe.ts';

const USERS = 3;

export const unfinishedBodies: LoadAttack = {
  name: `${USERS} users who leave out the last byte of ${REQUESTS_OF_EACH} bodies of 31 MB each`,
  env: { EGRESS_ALLOW: '127.0.0.1' },
  async prepare(app, attacker, other) {
    const attackers = [attacker];
    while (attackers.length < USERS) attackers.push(await createServerClient(app));
    const users = attackers.map(({ session }) => ({ url: app.url, session }));
    const upstream = await startUpstreamProcess();
    return {
      load: { attacker: 'unfinished-bodies', settings: { users } },
      probe: await createChatProbe(app, other, upstream, 256 * 1024),
      close: () => upstream.stop(),
    };
  },
};
