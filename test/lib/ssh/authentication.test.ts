import { describe, expect, it } from '@jest/globals';
import { text } from 'node:stream/consumers';
import type { AuthContext, KeyboardAuthContext, Prompt } from 'ssh2';
import type { SshServer } from '../../../src/lib/ssh/config.ts';
import { generateSshKeyPair } from '../../../src/lib/ssh/private-key.ts';
import { registerPrivateKey, sshHosts, type SshServer as SshAddress } from '../../support/hosts.ts';
import { createJob, LIMITS, openRunner, readAll, targetAt } from '../../runners/ssh/ssh-runs.ts';
import { describeWithSshd, startSshd } from '../../support/sshd.ts';
import { startScriptedServer } from './scripted-server.ts';
import { neverAborted, openConnections, serverAt } from './servers.ts';

/** Runs a command and returns its stdout. */
async function runEcho(server: SshServer): Promise<string> {
  const { connections } = openConnections();
  const stream = await connections.openExecStream(server, 'echo done', neverAborted());
  stream.end();
  return await text(stream);
}

const withKey = (private_key: string | null, password: string | null) => ({
  ...{ auth_method: 'key', private_key, password },
});
const withPassword = (password: string, private_key: string | null) => ({
  ...{ auth_method: 'password', private_key, password },
});

describeWithSshd('an OpenSSH server that wants two factors', () => {
  const { keys, password } = sshHosts();
  const startWith = (methods: string, pam?: 'permit' | 'unix') =>
    startSshd({
      lines: [`AuthenticationMethods ${methods}`, 'HostbasedAuthentication yes'],
      ...(pam && { pam }),
    });

  it.each([
    ['publickey,keyboard-interactive', 'permit', withKey(keys.ed25519, null)],
    ['publickey,keyboard-interactive', 'permit', withKey(keys.rsa, password)],
    ['publickey,keyboard-interactive', 'unix', withKey(keys.ed25519, password)],
    ['publickey,password', undefined, withKey(keys.ecdsa, password)],
    ['publickey,password', 'unix', withKey(keys.ed25519, password)],
    ['publickey,password publickey,keyboard-interactive', 'unix', withKey(keys.ed25519, password)],
    ['password,publickey', undefined, withPassword(password, keys.ed25519)],
    ['keyboard-interactive,publickey', 'unix', withPassword(password, keys.ed25519)],
    ['keyboard-interactive,password', 'unix', withPassword(password, null)],
  ] as const)('is used with %s and PAM %s (%#)', async (methods, pam, config) => {
    expect(await runEcho(serverAt(await startWith(methods, pam), config))).toBe('done\n');
  });

  it('is tested, and its runs end by themselves and are cancelled', async () => {
    const address = await startWith('publickey,password', 'unix');
    const target = targetAt(serverAt(address, withKey(keys.ed25519, password)));
    const runner = openRunner();
    expect(await runner.test(target, neverAborted())).toMatchObject({ status: 'online', hostKey: null });
    const ended = createJob({ program: { command: 'echo ran; exit 3' } });
    expect(await readAll(runner.run(target, ended, LIMITS, neverAborted()))).toMatchObject({
      output: 'ran\n',
      exit: { cause: 'exited', code: 3, cleanup: 'verified' },
    });
    const stop = new AbortController();
    const endless = createJob({ program: { command: 'echo ready; sleep 1000' } });
    const cancel = (output: string) => output === 'ready\n' && stop.abort('cancelled');
    expect(await readAll(runner.run(target, endless, LIMITS, stop.signal), cancel)).toMatchObject({
      exit: { cause: 'cancelled', cleanup: 'verified' },
    });
  });

  it('is used with the password first and an encrypted key second', async () => {
    const { keys: all, passphrase } = sshHosts();
    const config = { ...withPassword(password, all.ed25519Pass), passphrase };
    expect(await runEcho(serverAt(await startWith('password,publickey'), config))).toBe('done\n');
  });

  it.each([
    [
      'publickey,keyboard-interactive',
      'unix',
      withKey(keys.ed25519, null),
      'The key was accepted; the server wants a second factor: it asks for a password. Store the password',
    ],
    [
      'publickey,keyboard-interactive',
      'unix',
      withKey(keys.ed25519, 'not the password'),
      'The key was accepted; the server wants a second factor, and refused the password.',
    ],
    [
      'publickey,password',
      undefined,
      withKey(keys.ed25519, null),
      'The key was accepted; the server wants a second factor: it asks for a password. Store the password',
    ],
    [
      'publickey,password',
      undefined,
      withKey(keys.ed25519, 'not the password'),
      'The key was accepted; the server wants a second factor, and refused the password.',
    ],
    [
      'password,publickey',
      undefined,
      withPassword(password, null),
      'The password was accepted; the server wants a second factor: a key. Store it',
    ],
    [
      'password,publickey',
      undefined,
      withPassword(password, keys.other),
      'The password was accepted; the server wants a second factor, and refused the key.',
    ],
    [
      'publickey,hostbased',
      undefined,
      withKey(keys.ed25519, password),
      'The key was accepted; the server wants a second factor of a kind that is not supported here.',
    ],
  ] as const)('with %s and PAM %s names what is missing (%#)', async (methods, pam, config, message) => {
    const opened = runEcho(serverAt(await startWith(methods, pam), config));
    await expect(opened).rejects.toMatchObject({
      ...{ failure: 'auth_failed', stage: 'authentication', hop: null },
      message: expect.stringContaining(message),
    });
  });
});

describe('a server that asks questions after it has accepted the key', () => {
  const { privateKey } = generateSshKeyPair();
  registerPrivateKey(privateKey);

  /** Asks the rounds of prompts, one after the other, and accepts any answers. */
  async function startAsking(rounds: readonly (readonly Prompt[])[]) {
    const answers: string[][] = [];
    const ask = (context: KeyboardAuthContext, round: number) => {
      const prompts = rounds[round];
      if (prompts === undefined) context.accept();
      else
        context.prompt([...prompts], (given) => {
          answers.push(given);
          ask(context, round + 1);
        });
    };
    const server = await startScriptedServer({
      authenticate: (context: AuthContext) => {
        if (context.method === 'keyboard-interactive') ask(context, 0);
        else if (context.method === 'publickey' && context.signature === undefined) context.accept();
        else context.reject(['keyboard-interactive'], context.method === 'publickey');
      },
      exec: (channel) => {
        channel.write('done\n');
        channel.exit(0);
        channel.end();
      },
    });
    return { server, answers };
  }
  const connect = (server: SshAddress, password: string | null) =>
    runEcho(serverAt(server, { username: 'user', ...withKey(privateKey, password) }));
  const hidden = (prompt: string): Prompt => ({ prompt, echo: false });
  const shown = (prompt: string): Prompt => ({ prompt, echo: true });

  it.each([
    ...[[[]], [[[]]], [[[hidden('Password: ')]]], [[[], [hidden('(me@host) Passwort: ')], []]]],
    ...[
      'Password for me@factory.example.org:',
      'Password for pin@host:',
      '(token@code-1) Password: ',
      'AD\\yubikey@verification.example password: ',
    ].map((prompt) => [[[hidden(prompt)]]]),
  ])('receives the password for one hidden prompt alone: %j', async (rounds) => {
    const { server, answers } = await startAsking(rounds);
    expect(await connect(server, 'asked-for-password')).toBe('done\n');
    expect(answers.flat()).toEqual(rounds.flat().map(() => 'asked-for-password'));
  });

  it.each([
    ['a hidden prompt without a stored password', null, [hidden('Password: ')], 'asks for a password'],
    ['a shown prompt', 'unsent', [shown('Password: ')], 'a question that cannot be answered'],
    [
      'two prompts',
      'unsent',
      [hidden('Password: '), hidden('Again: ')],
      'a question that cannot be answered',
    ],
    ...[
      'Verification code: ',
      'Passcode or option (1-3): ',
      'Bestätigungscode: ',
      'OTP: ',
      'PIN + token: ',
      'Response: ',
      '验证码: ',
      'Mot de passe à usage unique : ',
      'Antwort: ',
      'Verification code for me@host: ',
      'OTP[me@host]: ',
      '(me@host) Passcode:',
    ].map(
      (prompt) => [`the prompt ${prompt}`, 'unsent', [hidden(prompt)], 'asks for a one-time code'] as const,
    ),
    ['an expired password', 'unsent', [hidden('New password: ')], 'The password has expired'],
  ] as const)('receives no answer to %s', async (_name, password, prompts, message) => {
    const { server, answers } = await startAsking([prompts]);
    const opened = connect(server, password);
    await expect(opened).rejects.toMatchObject({
      failure: 'auth_failed',
      message: expect.stringContaining(message),
    });
    await expect(opened).rejects.toMatchObject({ message: expect.not.stringContaining('Passcode') });
    expect(answers).toEqual([]);
  });

  it('receives no answer by prompts after it has accepted the password', async () => {
    const answers: string[][] = [];
    const server = await startScriptedServer({
      authenticate(context: AuthContext) {
        if (context.method === 'keyboard-interactive')
          context.prompt([hidden('Password: ')], (given) => {
            answers.push(given);
            context.reject();
          });
        else context.reject(['keyboard-interactive'], context.method === 'password');
      },
    });
    const opened = runEcho(serverAt(server, { username: 'user', password: 'asked-for-password' }));
    await expect(opened).rejects.toMatchObject({ failure: 'auth_failed' });
    expect(answers).toEqual([]);
  });

  it('receives the password once', async () => {
    const { server, answers } = await startAsking([[hidden('Password: ')], [hidden('Password: ')]]);
    await expect(connect(server, 'asked-for-password')).rejects.toThrow(/refused the password/);
    expect(answers).toEqual([['asked-for-password']]);
  });

  it('receives no password when it has refused the key', async () => {
    const server = await startScriptedServer({
      authenticate: (context) => context.reject(['publickey', 'password', 'keyboard-interactive']),
    });
    await expect(connect(server, 'unsent')).rejects.toMatchObject({ failure: 'auth_failed' });
    expect(server.attempts).toEqual(['publickey']);
  });
});
