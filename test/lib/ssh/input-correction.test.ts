import { describe, expect, it } from '@jest/globals';
import { correctSshInput, findHostProblem } from '../../../src/lib/ssh/input-correction.ts';
import { sshConfig } from '../../../src/lib/ssh/config.ts';

const login = { auth_method: 'password', password: 'secret' };
const PORT = 'the port in host differs from `port`: write the host alone';
const USER = 'the user in host differs from `username`: write the host alone';

describe('the host of an SSH server', () => {
  it.each<[string, Record<string, unknown>]>([
    ['10.0.0.5', { host: '10.0.0.5' }],
    ['10.0.0.5:2222', { host: '10.0.0.5', port: 2222 }],
    ['dev.example.com:22', { host: 'dev.example.com', port: 22 }],
    ['me@dev.example.com', { host: 'dev.example.com', username: 'me' }],
    ['me@dev.example.com:2222', { host: 'dev.example.com', port: 2222, username: 'me' }],
    ['me@corp@dev.example.com', { host: 'dev.example.com', username: 'me@corp' }],
    ['ssh://dev.example.com', { host: 'dev.example.com' }],
    ['SSH://me@dev.example.com:2222/', { host: 'dev.example.com', port: 2222, username: 'me' }],
    ['  dev.example.com\n', { host: 'dev.example.com' }],
    ['::1', { host: '::1' }],
    ['[::1]', { host: '[::1]' }],
    ['[::1]:22', { host: '[::1]', port: 22 }],
    ['me@2001:db8::1', { host: '2001:db8::1', username: 'me' }],
    ['ssh://me@[2001:db8::1]:2222', { host: '[2001:db8::1]', port: 2222, username: 'me' }],
  ])('%j is read as %j', (host, expected) => {
    const corrected = correctSshInput({ host, ...login });
    expect(corrected).toEqual({ sent: { ...login, ...expected }, problems: {} });
    expect(correctSshInput(corrected.sent)).toEqual(corrected);
    const parsed = sshConfig.safeParse({ username: 'me', ...corrected.sent });
    expect(parsed.success && findHostProblem(parsed.data.host)).toBeUndefined();
  });

  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['h:2222', { port: 2222 }, { host: 'h', port: 2222 }],
    ['h:2222', { port: '' }, { host: 'h', port: 2222 }],
    ['h:2222', { port: null }, { host: 'h', port: 2222 }],
    ['me@h', { username: 'me' }, { host: 'h', username: 'me' }],
    ['me@h', { username: '' }, { host: 'h', username: 'me' }],
  ])('%j may repeat %j', (host, fields, expected) => {
    expect(correctSshInput({ host, ...fields })).toEqual({ sent: { ...fields, ...expected }, problems: {} });
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['h:2222', { port: 22 }, PORT],
    ['[::1]:2222', { port: 22 }, PORT],
    ['me@h', { username: 'you' }, USER],
    [
      'ssh://me@h:2222',
      { username: 'you', port: 22 },
      'the port and user in host differ from `port` and `username`: write the host alone',
    ],
    ['me:secret@h', {}, 'contains a password'],
  ])('%j is refused beside %j', (host, fields, message) => {
    const { sent, problems } = correctSshInput({ host, ...fields });
    expect(sent).toEqual({ host, ...fields });
    expect(problems).toEqual({ host: expect.stringContaining(message) });
    expect(JSON.stringify(problems)).not.toContain('secret');
  });

  it.each([
    ...[
      '',
      'h:',
      'h:0',
      'h:65536',
      'h:22:22',
      'h h',
      'http://h',
      'h/path',
      'ssh://',
      '@h',
      'me@',
      '[::1',
      '::1]:22',
    ],
    ...['1:2:3', '10.0.0.5:2222:1', 'ssh -p 22 me@h', 'me@h -p 22', '[h]:22', 'a'.repeat(300)],
  ])('%j is refused', (host) => {
    const { sent } = correctSshInput({ host, username: 'me', ...login });
    const parsed = sshConfig.safeParse(sent);
    const message = parsed.success ? findHostProblem(parsed.data.host) : parsed.error.issues[0]?.message;
    expect(message).toEqual(expect.any(String));
  });

  it('is checked quickly, whatever it repeats', () => {
    for (const part of [':', '@', 'a:', 'a@', '[', ' ']) {
      const startedMs = performance.now();
      correctSshInput({ host: part.repeat(500_000 / part.length) });
      correctSshInput({ host: part.repeat(500 / part.length) });
      correctSshInput({ host: `${part.repeat(500 / part.length)}[` });
      expect(performance.now() - startedMs).toBeLessThan(500);
    }
  });
});
