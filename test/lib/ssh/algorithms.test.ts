import { describe, expect, it } from '@jest/globals';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { createAlgorithmOffers } from '../../../src/lib/ssh/algorithms.ts';
import type { SshServer } from '../../../src/lib/ssh/config.ts';
import { parseHostKey } from '../../../src/lib/ssh/host-key.ts';
import { SSH_STATE } from '../../support/host-processes.ts';
import { describeWithSshd, startSshd } from '../../support/sshd.ts';
import { neverAborted, openConnections, serverAt } from './servers.ts';

const open = (server: SshServer, command: string) => {
  const { connections } = openConnections();
  return connections.openExecStream(server, command, neverAborted());
};

describeWithSshd('an OpenSSH server with few algorithms', () => {
  const rsaFile = path.join(SSH_STATE, 'rsa');
  const rsaHostKey = () =>
    parseHostKey(Buffer.from(readFileSync(`${rsaFile}.pub`, 'utf8').split(' ')[1] ?? '', 'base64')) ?? null;

  it.each([
    ['curve25519-sha256', 'aes128-gcm@openssh.com', 'hmac-sha2-256'],
    ['ecdh-sha2-nistp521', 'chacha20-poly1305@openssh.com', 'umac-64@openssh.com'],
    ['diffie-hellman-group14-sha256', 'aes128-ctr', 'hmac-sha2-256'],
    ['diffie-hellman-group16-sha512', 'aes256-gcm@openssh.com', 'umac-128-etm@openssh.com'],
    ['diffie-hellman-group18-sha512', 'aes192-ctr', 'hmac-sha2-512-etm@openssh.com'],
  ])('is used with %s, %s and %s', async (kex, cipher, mac) => {
    const lines = [`KexAlgorithms ${kex}`, `Ciphers ${cipher}`, `MACs ${mac}`];
    const stream = await open(serverAt(await startSshd({ lines })), 'echo done');
    stream.end();
    expect(await text(stream)).toBe('done\n');
  });

  it('is used with an RSA host key and SHA-2', async () => {
    const lines = [`HostKey ${rsaFile}`, 'HostKeyAlgorithms rsa-sha2-512'];
    const server = { ...(await startSshd({ lines })), hostKey: rsaHostKey() };
    const stream = await open(serverAt(server as never), 'echo done');
    stream.end();
    expect(await text(stream)).toBe('done\n');
  });

  it.each<[string[], string, string, string]>([
    [
      ['KexAlgorithms sntrup761x25519-sha512@openssh.com'],
      ...(['key exchanges', 'sntrup761x25519-sha512@openssh.com', 'Add curve25519-sha256'] as const),
    ],
    [
      ['KexAlgorithms diffie-hellman-group-exchange-sha256'],
      ...([
        'key exchanges',
        'diffie-hellman-group-exchange-sha256',
        'or diffie-hellman-group14-sha256 to',
      ] as const),
    ],
    [
      ['KexAlgorithms diffie-hellman-group14-sha1,diffie-hellman-group1-sha1'],
      ...([
        'key exchanges',
        'diffie-hellman-group1-sha1, diffie-hellman-group14-sha1',
        'to KexAlgorithms',
      ] as const),
    ],
    [
      ['MACs umac-128-etm@openssh.com', 'Ciphers aes256-ctr'],
      ...(['MACs', 'umac-128-etm@openssh.com', 'Add hmac-sha2-256-etm@openssh.com'] as const),
    ],
    [
      ['MACs hmac-sha1,hmac-md5', 'Ciphers aes256-ctr'],
      ...(['MACs', 'hmac-sha1, hmac-md5', 'to MACs in its sshd_config'] as const),
    ],
    [['Ciphers aes256-cbc,3des-cbc'], ...(['ciphers', 'aes256-cbc, 3des-cbc', 'Add aes128-gcm'] as const)],
    [
      [`HostKey ${rsaFile}`, 'HostKeyAlgorithms ssh-rsa'],
      ...(['host key algorithms', 'ssh-rsa', 'Add a HostKey of the type ssh-ed25519'] as const),
    ],
  ])(
    '%j is refused with the names of what it offers and of what would do',
    async (lines, kind, names, action) => {
      const server = serverAt(await startSshd({ lines }));
      for (const hostKey of [server.hostKey, null])
        await expect(open({ ...server, hostKey }, 'true')).rejects.toMatchObject({
          ...{ failure: 'error', stage: 'host_key', hostKey: null },
          message: expect.stringMatching(
            new RegExp(`offers no ${kind} that are accepted here, only ${names}\\. .*${action}`),
          ),
        });
    },
  );

  it('that exchanges keys again after every 64 KB runs a program to its end', async () => {
    const stream = await open(
      serverAt(await startSshd({ lines: ['RekeyLimit 64K'] })),
      'head -c 4000000 /dev/zero',
    );
    let bytes = 0;
    stream.on('data', (chunk: Buffer) => (bytes += chunk.length));
    expect(await stream.ended).toMatchObject({ code: 0 });
    expect(bytes).toBe(4_000_000);
  });
});

describe('a server without a common algorithm', () => {
  const NO_KEX = new Error('Handshake failed: no matching key exchange algorithm');

  it.each([
    ['secret-name,ext-info-s', NO_KEX, 'only others.'],
    ['', NO_KEX, 'only others.'],
    ['secret-name,mlkem768x25519-sha256', NO_KEX, 'only mlkem768x25519-sha256.'],
    ['curve448-sha512', new Error('Handshake failed: signature verification failed'), undefined],
  ])('that offers %j is described with known names alone', (names, error, expected) => {
    const offers = createAlgorithmOffers();
    offers.record('Handshake: (local) KEX method: curve25519-sha256');
    offers.record(`Handshake: (remote) KEX method: ${names}`);
    offers.record('Handshake: no matching key exchange algorithm');
    const message = offers.findMismatch(error);
    if (expected === undefined) expect(message).toBeUndefined();
    else expect(message).toContain(expected);
    expect(message ?? '').not.toContain('secret-name');
  });
});
