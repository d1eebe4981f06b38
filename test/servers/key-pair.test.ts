import { expect, it } from '@jest/globals';
import ssh2 from 'ssh2';
import type { SshKeyPair } from '../../src/servers/schema.ts';
import { startApp } from '../support/app.ts';
import { createSshServerConfig, createServerClient } from '../support/servers.ts';

it('each generated key pair is new, is readable by SSH and works as the key of a server', async () => {
  await using app = await startApp();
  const ada = await createServerClient(app);
  const make = async () => (await (await ada.send('POST', '/ssh-keypair')).json()) as SshKeyPair;
  const [one, other] = [await make(), await make()];
  expect(Object.keys(one)).toEqual(['public_key', 'private_key']);
  expect(one.public_key).not.toBe(other.public_key);
  expect(one.public_key).toBe(`ssh-ed25519 ${publicHalf(one.private_key)} ops-center`);
  const { id } = await ada.add({
    connection_config: createSshServerConfig({
      auth_method: 'key',
      password: null,
      private_key: one.private_key,
    }),
  });
  expect((await ada.get(id)).connection_config).toMatchObject({ private_key: '***stored***' });
  expect(app.logs()).not.toContain(one.private_key.split('\n')[2]);
});

function publicHalf(privateKey: string): string {
  const parsed = ssh2.utils.parseKey(privateKey);
  if (parsed instanceof Error) throw parsed;
  return parsed.getPublicSSH().toString('base64');
}
