import { expect, it } from '@jest/globals';
import { parseSshTarget } from '../../src/web/pages/servers/parse-ssh.ts';

it.each([
  ['ssh dev.example.com', { host: 'dev.example.com', unused: [] }],
  ['ssh me@dev', { host: 'dev', username: 'me', unused: [] }],
  ['ssh -p 2222 -l me dev', { host: 'dev', port: 2222, username: 'me', unused: [] }],
  ['ssh ssh://me@dev:2222/', { host: 'dev', port: 2222, username: 'me', unused: [] }],
  [
    'ssh -i ~/.ssh/id -J jump -A me@dev uptime',
    { host: 'dev', username: 'me', unused: ['-i ~/.ssh/id', '-J jump', '-A', 'uptime'] },
  ],
  [
    'Host dev\n  HostName 10.0.0.7\n  User me\n  Port 2222\n  IdentityFile ~/.ssh/id\n',
    { host: '10.0.0.7', port: 2222, username: 'me', unused: ['IdentityFile ~/.ssh/id'] },
  ],
  ['Host dev other\n# a comment\nUser=me', { host: 'dev', username: 'me', unused: [] }],
])('reads %j', (text, target) => {
  expect(parseSshTarget(text)).toEqual(target);
});

it.each(['', 'dev.example.com', 'sshd -t', 'rm -rf /'])('does not read %j', (text) => {
  expect(parseSshTarget(text)).toBeUndefined();
});
