import { addKey } from '../../test/support/key.ts';
import type { LoadAttack } from './attack.ts';
import { createChatProbe, startUpstreamProcess } from './chat-probe.ts';
import { postWithoutReading } from './raw-request.ts';

const CLIENTS = 16;

export const unreadAnswers: LoadAttack = {
  name: `${CLIENTS} clients of one user that do not read answers of 31 MB and events of 8 MB`,
  env: { EGRESS_ALLOW: '127.0.0.1' },
  async prepare(app, attacker, other) {
    const upstream = await startUpstreamProcess();
    await addKey(app, attacker.session, { provider: 'custom', key: 'some-key', endpoint: upstream.url });
    return {
      begin() {
        const sockets = Array.from({ length: CLIENTS }, (_, client) => {
          const isStream = client % 2 === 1;
          const model = `custom/${isStream ? 'events' : 'whole'}`;
          const body = Buffer.from(JSON.stringify({ model, stream: isStream, messages: [] }));
          return postWithoutReading(app, { session: attacker.session, path: '/v1/chat/completions', body });
        });
        return Promise.resolve(async () => {
          for (const socket of sockets) socket.destroy();
          await upstream.stop();
        });
      },
      probe: await createChatProbe(app, other, upstream, 1024),
    };
  },
};
