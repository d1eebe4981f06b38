import { describe, expect, it } from '@jest/globals';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { createSshRunner } from '../../../src/runners/ssh/index.ts';
import { localDialer } from '../../lib/ssh/servers.ts';

const dialer = localDialer();
const runner = createSshRunner({ connections: createSshConnections({ dialer }) });
const base = { host: 'host.example', username: 'user', auth_method: 'password', password: 'secret' };

/** Where a configuration is refused, and why. */
function faults(config: unknown): Record<string, string> {
  const { error } = runner.config.safeParse(config);
  return Object.fromEntries((error?.issues ?? []).map(({ path, message }) => [path.join('.'), message]));
}

describe('the configuration of an SSH server', () => {
  it('has every member once it was read', () => {
    expect(runner.config.parse(base)).toEqual({
      ...{ host: 'host.example', port: 22, username: 'user', auth_method: 'password', password: 'secret' },
      ...{ private_key: null, passphrase: null, jump: null },
    });
  });

  it.each([
    ['a host with a port', { host: 'host.example:22' }, 'host'],
    ['a host with a user', { host: 'user@host.example' }, 'host'],
    ['a host with spaces', { host: 'host example' }, 'host'],
    ['a host that is an option', { host: '' }, 'host'],
    ['a port of none', { port: 0 }, 'port'],
    ['a port beyond all', { port: 65_536 }, 'port'],
    ['a user with control characters', { username: 'a\nb' }, 'username'],
    ['another way to sign in', { auth_method: 'agent' }, 'auth_method'],
    ['a password that is not there', { password: null }, 'password'],
    ['a key that is not there', { auth_method: 'key' }, 'private_key'],
    ['a key that is none', { auth_method: 'key', private_key: 'hello' }, 'private_key'],
  ])('is refused with %s', (_name, given, member) => {
    expect(Object.keys(faults({ ...base, ...given }))).toEqual([member]);
  });

  it.each(['agent', 'proxy_command', 'sock', 'privateKey'])(
    'is refused with the undeclared member %s',
    (name) => {
      expect(runner.config.safeParse({ ...base, [name]: 'x' }).success).toBe(false);
    },
  );

  it('says how a key of PuTTY is converted', () => {
    const ppk = { ...base, auth_method: 'key', private_key: 'PuTTY-User-Key-File-2: ssh-rsa\n' };
    expect(faults(ppk)['private_key']).toContain('puttygen key.ppk -O private-openssh');
  });

  it('quotes no secret where it is refused', () => {
    const secret = 'a-secret-that-is-no-key';
    const config = { ...base, auth_method: 'key', private_key: secret, passphrase: secret, port: 'x' };
    expect(JSON.stringify(runner.config.safeParse(config).error?.issues)).not.toContain(secret);
  });

  it('sends secrets to host, port, account, jump server and host key, and to no other', () => {
    const hostKey = { type: 'ssh-ed25519', fingerprint: 'SHA256:x' };
    const config = runner.config.parse({ ...base, jump: 'other' });
    expect(runner.destination(config, hostKey)).toEqual({
      ...{ type: 'ssh', host: 'host.example', port: 22, username: 'user', jump: 'other', hostKey },
    });
    expect(runner.jumpServerIds(config)).toEqual(['other']);
    expect(runner.secretFields).toEqual(['password', 'private_key', 'passphrase']);
  });
});
