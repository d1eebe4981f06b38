import { describe, expect, it } from '@jest/globals';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import type { SshServer } from '../../../src/lib/ssh/config.ts';
import { SSH_STATE } from '../../support/host-processes.ts';
import { sshHosts } from '../../support/hosts.ts';
import { describeWithSshd, startSshd, type SshdOptions } from '../../support/sshd.ts';
import { startScriptedServer } from './scripted-server.ts';
import { neverAborted, openConnections, serverAt } from './servers.ts';

const BANNER = 'Authorized use only. secret-banner: a locked account is locked for ever.\n';

async function connect(server: SshServer): Promise<string> {
  const { connections } = openConnections();
  const stream = await connections.openExecStream(server, 'echo done', neverAborted());
  stream.end();
  return await text(stream);
}

const withKey = (private_key: string, change: Record<string, unknown> = {}) => ({
  ...{ auth_method: 'key', password: null, private_key, ...change },
});

describeWithSshd('an OpenSSH server that refuses a sign-in', () => {
  const { user, keys, password } = sshHosts();
  const authorized = () => readFileSync(path.join(SSH_STATE, 'ed25519.pub'), 'utf8');
  const CHECKS = [
    'refused the key for this user name',
    ...[
      'authorized_keys',
      'from=',
      'AllowUsers, DenyUsers',
      'locked nor expired',
      'certificates or SHA-1',
      'log',
    ],
  ];
  const lines = (...all: string[]): SshdOptions => ({ lines: all });
  const ed25519 = withKey(keys.ed25519);

  it.each<[string, SshdOptions, Record<string, unknown>, string[]]>([
    ['a key that is not authorized', lines(), withKey(keys.other), CHECKS],
    ['AllowUsers', lines('AllowUsers root'), ed25519, CHECKS],
    ['DenyUsers', lines(`DenyUsers ${user}`), ed25519, CHECKS],
    ['a locked account', lines(), { ...ed25519, username: `${user}-locked` }, CHECKS],
    ['an expired account', lines(), { ...ed25519, username: `${user}-expired` }, CHECKS],
    [
      'from= in authorized_keys',
      { ...lines('AuthorizedKeysFile %keys%'), files: { keys: `from="192.0.2.1" ${authorized()}` } },
      ...([ed25519, CHECKS] as const),
    ],
    [
      'certificates alone',
      lines('PubkeyAcceptedAlgorithms ssh-ed25519-cert-v01@openssh.com'),
      ed25519,
      CHECKS,
    ],
    ['SHA-1 signatures alone', lines('PubkeyAcceptedAlgorithms ssh-rsa'), withKey(keys.rsa), CHECKS],
    ['no RSA keys', lines('PubkeyAcceptedAlgorithms ssh-ed25519'), withKey(keys.rsa), CHECKS],
    ['one attempt', lines('MaxAuthTries 1'), withKey(keys.other), CHECKS],
    [
      'root with a key',
      lines('AllowUsers root'),
      withKey(keys.other, { username: 'root' }),
      ['PermitRootLogin must not'],
    ],
    [
      'root with a password',
      lines('AllowUsers root'),
      { username: 'root' },
      ['refused the user name and password', 'PermitRootLogin must be "yes"'],
    ],
    [
      'a locked account with a password',
      lines(),
      { username: `${user}-locked` },
      ['locked nor expired', 'log'],
    ],
    [
      'an expired account, as PAM says',
      { lines: [], pam: 'unix' },
      { ...ed25519, username: `${user}-expired` },
      ['The account has expired on the server.'],
    ],
    [
      'an expired account with a password, as PAM says',
      { lines: [], pam: 'unix' },
      { username: `${user}-expired` },
      ['The account has expired on the server.'],
    ],
    [
      'PubkeyAuthentication no',
      lines('PubkeyAuthentication no'),
      ed25519,
      ['takes no key', 'It offers password. Set auth_method to "password", or PubkeyAuthentication'],
    ],
    [
      'keys as the second factor',
      lines('AuthenticationMethods password,publickey'),
      ed25519,
      ['takes no key of this account as the first factor', 'It offers password.'],
    ],
    [
      'PasswordAuthentication no',
      lines('PasswordAuthentication no'),
      {},
      ['takes no password', 'It offers publickey. Set auth_method to "key", or PasswordAuthentication'],
    ],
  ])(
    'for %s says what it can be, and does not quote the banner',
    async (_name, options, config, expected) => {
      const files = { ...options.files, banner: BANNER };
      const server = await startSshd({ ...options, lines: [...options.lines, 'Banner %banner%'], files });
      const error = await connect(serverAt(server, { password, ...config })).catch(
        (reason: unknown) => reason,
      );
      expect(error).toMatchObject({ name: 'SshError', failure: 'auth_failed', stage: 'authentication' });
      const { message } = error as Error;
      for (const part of expected) expect(message).toContain(part);
      expect(message).not.toMatch(/banner|for ever/);
    },
  );

  it.each([
    [30_000, 'done\n'],
    [40_000, undefined],
    [200_000, undefined],
  ])('with a banner of %d bytes is used, or the message names the banner', async (size, output) => {
    const files = { banner: 'secret-banner '.repeat(size / 14) };
    const server = await startSshd({ lines: ['Banner %banner%'], files });
    const opened = connect(serverAt(server));
    if (output !== undefined) expect(await opened).toBe(output);
    else
      await expect(opened).rejects.toMatchObject({
        ...{ failure: 'error', stage: 'authentication' },
        message: expect.stringMatching(/^(?!.*secret-banner).*Shorten the file that Banner/),
      });
  });
});

describe('a server that closes the connection during the sign-in', () => {
  it.each([
    ['', /without a reason. The account may be expired, locked or excluded by PAM.*MaxAuthTries/],
    ['Your account has expired; please contact your system administrator.', /The account has expired/],
    [
      'You are required to change your password immediately (administrator enforced).',
      /password has expired/,
    ],
    ['The account is locked due to 3 failed logins.', /The account is locked/],
    ['System is going down. Unprivileged users are not permitted to log in anymore.', /permits no logins/],
    ['Welcome to secret-host', /without a reason/],
  ])('after the banner %j is described', async (banner, message) => {
    const server = await startScriptedServer({
      banner,
      onConnection: (client) => {
        client.once('authentication', () => client.end());
      },
      authenticate: () => undefined,
    });
    const opened = connect(serverAt(server, { username: 'user', password: 'password' }));
    await expect(opened).rejects.toMatchObject({
      failure: 'auth_failed',
      message: expect.stringMatching(message),
    });
    await expect(opened).rejects.not.toThrow(/secret-host|administrator/);
  });

  it('that only warns in its banner is described by what it refuses', async () => {
    const server = await startScriptedServer({
      banner: 'The account is locked after 3 failed logins.',
      authenticate: (context) => context.reject(['password']),
    });
    const opened = connect(serverAt(server, { username: 'user', password: 'password' }));
    await expect(opened).rejects.toThrow(/refused the user name and password/);
  });
});

describe('a server that does not answer a sign-in', () => {
  it.each([
    ['the first factor', false, 'offline', /key exchange has ended, but .* within 15 s.*UseDNS/],
    [
      'a second factor',
      true,
      'auth_failed',
      /password was accepted, but .* within 15 s.*approval on another device/,
    ],
  ])(
    'is described as waiting for %s',
    async (_name, isAccepted, failure, message) => {
      const server = await startScriptedServer({
        authenticate: (context) => {
          if (isAccepted && context.method === 'password') context.reject(['keyboard-interactive'], true);
        },
      });
      const opened = connect(serverAt(server, { username: 'user', password: 'password' }));
      await expect(opened).rejects.toMatchObject({
        ...{ failure, stage: 'authentication' },
        message: expect.stringMatching(message),
      });
    },
    30_000,
  );
});
