import { describe, expect, it } from '@jest/globals';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { createSshRunner } from '../../../src/runners/ssh/index.ts';
import { localDialer } from '../../lib/ssh/servers.ts';

const dialer = localDialer();
const runner = createSshRunner({ connections: createSshConnections({ dialer }) });
const base = { host: 'host.example', username: 'user', auth_method: 'password', password: 'secret' };

/** The issues of a configuration: message by path. */
function listIssues(config: unknown): Record<string, string> {
  const { error } = runner.config.safeParse(config);
  return Object.fromEntries((error?.issues ?? []).map(({ path, message }) => [path.join('.'), message]));
}

describe('the configuration of an SSH server', () => {
  it('has every member after it was parsed', () => {
    expect(runner.config.parse(base)).toEqual({
      ...{ host: 'host.example', port: 22, username: 'user', auth_method: 'password', password: 'secret' },
      ...{ private_key: null, passphrase: null, jump: null, interpreters: null, environment: null },
      setup: null,
    });
  });

  it.each([
    ['a host with a port', { host: 'host.example:22' }, 'host'],
    ['a host with a user', { host: 'user@host.example' }, 'host'],
    ['a host with spaces', { host: 'host example' }, 'host'],
    ['a host that is an option', { host: '' }, 'host'],
    ['port 0', { port: 0 }, 'port'],
    ['a port above 65535', { port: 65_536 }, 'port'],
    ['a user with control characters', { username: 'a\nb' }, 'username'],
    ['an unknown authentication method', { auth_method: 'agent' }, 'auth_method'],
    ['a missing password', { password: null }, 'password'],
    ['a missing key', { auth_method: 'key' }, 'private_key'],
    ['an invalid key', { auth_method: 'key', private_key: 'hello' }, 'private_key'],
    ['an interpreter that is an option', { interpreters: { python: '-c' } }, 'interpreters.python'],
    ['an interpreter with a relative path', { interpreters: { bash: 'bin/bash' } }, 'interpreters.bash'],
    ['an interpreter with arguments', { interpreters: { python: 'env python' } }, 'interpreters.python'],
    ['an interpreter in the home folder', { interpreters: { bash: '~/bash' } }, 'interpreters.bash'],
    ['an interpreter on two lines', { interpreters: { bash: '/bin/a\nb' } }, 'interpreters.bash'],
    ['an interpreter with invisible characters', { interpreters: { bash: '/b\u202e' } }, 'interpreters.bash'],
    ['an interpreter of another language', { interpreters: { ruby: 'ruby' } }, 'interpreters'],
    ['a variable with an invalid name', { environment: { 'A B': '' } }, 'environment.A B'],
    ['a variable that shells refuse to set', { environment: { UID: '0' } }, 'environment.UID'],
    ['a variable with a zero byte', { environment: { A: 'a\0b' } }, 'environment.A'],
    [
      'too many variables',
      { environment: Object.fromEntries(Array.from({ length: 65 }, (_each, n) => [`V${n}`, ''])) },
      'environment',
    ],
  ])('is refused with %s', (_name, changes, member) => {
    expect(Object.keys(listIssues({ ...base, ...changes }))).toEqual([member]);
  });

  it('takes an empty interpreter as left out', () => {
    const { interpreters } = runner.config.parse({
      ...base,
      interpreters: { python: '', bash: '/b i n/bash' },
    });
    expect(interpreters).toEqual({ python: null, javascript: null, bash: '/b i n/bash' });
  });

  it.each(['agent', 'proxy_command', 'sock', 'privateKey'])(
    'is refused with the undeclared member %s',
    (name) => {
      expect(runner.config.safeParse({ ...base, [name]: 'x' }).success).toBe(false);
    },
  );

  it('explains how to convert a PuTTY key', () => {
    const ppk = { ...base, auth_method: 'key', private_key: 'PuTTY-User-Key-File-2: ssh-rsa\n' };
    expect(listIssues(ppk)['private_key']).toContain('puttygen key.ppk -O private-openssh');
  });

  it('quotes no secret when it is refused', () => {
    const secret = 'a-secret-that-is-no-key';
    const config = { ...base, auth_method: 'key', private_key: secret, passphrase: secret, port: 'x' };
    expect(JSON.stringify(runner.config.safeParse(config).error?.issues)).not.toContain(secret);
  });

  it('binds secrets to host, port, account, jump server and host key', () => {
    const hostKey = { type: 'ssh-ed25519', fingerprint: 'SHA256:x' };
    const config = runner.config.parse({ ...base, jump: 'other' });
    expect(runner.destination(config, hostKey)).toEqual({
      ...{ type: 'ssh', host: 'host.example', port: 22, username: 'user', jump: 'other', hostKey },
    });
    expect(runner.jumpServerIds(config)).toEqual(['other']);
    expect(runner.secretFields).toEqual(['password', 'private_key', 'passphrase', 'environment', 'setup']);
  });
});
