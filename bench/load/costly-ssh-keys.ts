import { sshHosts } from '../../test/support/hosts.ts';
import { createLockedKey } from '../../test/support/locked-key.ts';
import type { ServerClient } from '../../test/support/servers.ts';
import type { LoadAttack } from './attack.ts';

const SERVERS = 8;
/** The most that is accepted. */
const ROUNDS = Number(process.env['BENCH_KEY_ROUNDS'] ?? 128);
const PASSPHRASE = 'a passphrase of this benchmark';

async function addServer(client: ServerClient, privateKey: string, passphrase: string): Promise<string> {
  const { plain, user } = sshHosts();
  const account = { host: plain.host, port: plain.port, username: user, auth_method: 'key' };
  const { id } = await client.add({
    connection_config: { ...account, private_key: privateKey, passphrase },
  });
  await client.confirm(id, plain.hostKey);
  return id;
}

export const costlySshKeys: LoadAttack = {
  name: `${SERVERS} SSH servers whose keys have ${ROUNDS} rounds`,
  env: { EGRESS_ALLOW: '127.0.0.1' },
  async prepare(app, attacker, other) {
    const key = createLockedKey(ROUNDS, PASSPHRASE);
    const ids: string[] = [];
    for (let n = 0; n < SERVERS; n += 1) ids.push(await addServer(attacker, key, PASSPHRASE));
    const { keys, passphrase } = sshHosts();
    const own = await addServer(other, keys.ed25519Pass, passphrase);
    return {
      load: {
        attacker: 'costly-ssh-keys',
        settings: { url: app.url, session: attacker.session, servers: ids },
      },
      probe: {
        name: 'test of a server whose key has 24 rounds',
        // A user may test 10 servers a minute.
        maxCalls: 4,
        call: async () => {
          const { status, message } = await other.test(own);
          if (status !== 'online') throw new Error(`the other user's server is ${status}: ${message}`);
        },
      },
    };
  },
};
