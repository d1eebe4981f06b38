import { addKey } from '../../test/support/key.ts';
import type { LoadAttack } from './attack.ts';
import { CLIENTS } from './attackers/unread-answers.ts';
import { createChatProbe, startUpstreamProcess } from './chat-probe.ts';

export const unreadAnswers: LoadAttack = {
  name: `${CLIENTS} clients of one user that do not read answers of 8 MB and events of 2 MB`,
  env: { EGRESS_ALLOW: '127.0.0.1' },
  async prepare(app, attacker, other) {
    // Two, since the other user must not wait for what the attacker's upstream sends.
    const [upstream, othersUpstream] = [await startUpstreamProcess(), await startUpstreamProcess()];
    await addKey(app, attacker.session, { provider: 'custom', key: 'some-key', endpoint: upstream.url });
    return {
      load: { attacker: 'unread-answers', settings: { url: app.url, session: attacker.session } },
      probe: await createChatProbe(app, other, othersUpstream, 1024),
      close: async () => {
        await Promise.all([upstream.stop(), othersUpstream.stop()]);
      },
    };
  },
};
