import { createServerClient } from '../../test/support/servers.ts';
import { createChatProbe, startUpstreamProcess } from './chat-probe.ts';
import type { LoadAttack } from './attack.ts';
import { postWithoutReading } from './raw-request.ts';

const USERS = 3;
const REQUESTS_OF_EACH = 4;
const BODY = Buffer.from(`{"model":"gpt-4o","messages":[],"user":"${'x'.repeat(31 * 1024 * 1024)}"}`);

export const unfinishedBodies: LoadAttack = {
  name: `${USERS} users who leave out the last byte of ${REQUESTS_OF_EACH} bodies of 31 MB each`,
  env: { EGRESS_ALLOW: '127.0.0.1' },
  async prepare(app, attacker, other) {
    const attackers = [attacker];
    while (attackers.length < USERS) attackers.push(await createServerClient(app));
    const upstream = await startUpstreamProcess();
    return {
      begin() {
        const sentBytes = BODY.length - 1;
        // A client whose upload was ended begins again.
        const sockets = new Set<ReturnType<typeof postWithoutReading>>();
        const stop = new AbortController();
        const open = (session: string) => {
          const socket = postWithoutReading(app, {
            session,
            path: '/v1/chat/completions',
            body: BODY,
            sentBytes,
          });
          sockets.add(socket);
          socket.resume().once('close', () => {
            sockets.delete(socket);
            if (!stop.signal.aborted) setTimeout(open, 100, session);
          });
        };
        for (const { session } of attackers) for (let n = 0; n < REQUESTS_OF_EACH; n += 1) open(session);
        return Promise.resolve(async () => {
          stop.abort();
          for (const socket of sockets) socket.destroy();
          await upstream.stop();
        });
      },
      probe: await createChatProbe(app, other, upstream, 256 * 1024),
    };
  },
};
