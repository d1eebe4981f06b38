import { describe, expect, it } from '@jest/globals';
import { generateKeyPairSync } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import ssh2 from 'ssh2';
import {
  findPrivateKeyProblem,
  generateSshKeyPair,
  parsePrivateKey,
} from '../../../src/lib/ssh/private-key.ts';
import { describeOn, registerPrivateKey, sshHosts } from '../../support/hosts.ts';
import { neverAborted } from './servers.ts';

const PPK = [
  'PuTTY-User-Key-File-3: ssh-ed25519',
  'Encryption: none',
  'Comment: somebody',
  'Public-Lines: 2',
  'AAAAC3NzaC1lZDI1NTE5AAAAIHJCszOHaI9X/yGLtjn22f0hO6VPMQDVtctkym6F',
  'JH1W',
  'Private-Lines: 1',
  'AAAAIGvvIpl8jyqn8Xufkw6v3FnEGtXF3KWw55AP3/AGEBpY',
  'Private-MAC: 2a629acfcfbe28488a1ba9b6948c36406bc28422',
].join('\n');
const SSH_KEYGEN = 'ssh-keygen';
const PASSPHRASE = 'a passphrase of this test';

const pkcs8 = (type: 'ed25519' | 'rsa' | 'ec', passphrase?: string): string => {
  const format = { type: 'pkcs8', format: 'pem' } as const;
  const cipher = passphrase === undefined ? {} : { cipher: 'aes-256-cbc', passphrase };
  const options = {
    modulusLength: 2048,
    namedCurve: 'prime256v1',
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { ...format, ...cipher },
  } as const;
  // Each overload accepts one type only.
  const { privateKey } = generateKeyPairSync(type as 'ed25519', options as never) as unknown as {
    privateKey: string;
  };
  registerPrivateKey(privateKey);
  return privateKey;
};

const parse = (text: string, passphrase: string | null) =>
  parsePrivateKey(text, passphrase, { owner: 'user:test', signal: neverAborted() });

/** True if the key's public half verifies its signature. */
async function isUsable(text: string, passphrase: string | null): Promise<boolean> {
  const key = await parse(text, passphrase);
  const data = Buffer.from('data');
  const digest = key.type === 'ssh-rsa' ? 'sha256' : undefined;
  return key.verify(data, key.sign(data, digest), digest);
}

describeOn('ssh', 'a private key made by OpenSSH', () => {
  const { keys, passphrase } = sshHosts();

  it.each(['ed25519', 'rsa', 'ecdsa', 'rsaPem'] as const)('of type %s is parsed', async (name) => {
    expect(await isUsable(keys[name], null)).toBe(true);
  });

  it('is parsed with Windows line ends and surrounding white space', async () => {
    expect(await isUsable(`\r\n  ${keys.ed25519.replaceAll('\n', '\r\n')}\r\n\r\n`, null)).toBe(true);
  });

  it.each(['ed25519Pass', 'rsaPass', 'rsaPemPass'] as const)(
    'of type %s is decrypted by its passphrase only',
    async (name) => {
      expect(await isUsable(keys[name], passphrase)).toBe(true);
      await expect(parse(keys[name], null)).rejects.toThrow(/is encrypted: enter its passphrase/);
      await expect(parse(keys[name], 'wrong')).rejects.toThrow(/passphrase does not decrypt/);
    },
  );

  it('is decrypted without blocking the event loop', async () => {
    const parsed = parse(keys.ed25519Pass, passphrase);
    let ticks = 0;
    const timer = setInterval(() => (ticks += 1), 1);
    await parsed;
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(0);
  });

  it('is refused when a part is missing, and no part of it is quoted', async () => {
    const cut = keys.ed25519.split('\n').toSpliced(2, 1).join('\n');
    await expect(parse(cut, null)).rejects.toThrow(/cannot be read|is not supported/);
    await expect(parse(cut, null)).rejects.not.toThrow(keys.ed25519.slice(60, 80));
  });
});

describe('a private key', () => {
  it.each(['ed25519', 'rsa', 'ec'] as const)('of type %s is read from PKCS#8', async (type) => {
    expect(await isUsable(pkcs8(type), null)).toBe(true);
    expect(await isUsable(pkcs8(type, PASSPHRASE), PASSPHRASE)).toBe(true);
    await expect(parse(pkcs8(type, PASSPHRASE), 'wrong')).rejects.toThrow(/passphrase does not decrypt/);
  });

  it.each([
    ['of PuTTY is refused with the command that converts it', PPK, /puttygen .* -O private-openssh/],
    ['that is a public key is refused', 'ssh-ed25519 AAAAC3Nza somebody', /public key/],
    ['that is a public key in PEM is refused', '-----BEGIN PUBLIC KEY-----\nMCow\n', /public key/],
    ['that is no key is refused', 'hello', /cannot be read/],
    ['that is empty is refused', '', /cannot be read/],
    ['that is a certificate is refused', '-----BEGIN CERTIFICATE-----\nMIIB\n', /cannot be read/],
  ])('%s', async (_rule, text, message) => {
    expect(findPrivateKeyProblem(text, null)).toMatch(message);
    await expect(parse(text, null)).rejects.toThrow(message);
  });

  it.each([
    '-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----',
    '-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----',
    '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----',
    `-----BEGIN OPENSSH PRIVATE KEY-----\n${Buffer.from('openssh-key-v1\0').toString('base64')}\n-----END OPENSSH PRIVATE KEY-----`,
  ])('that is damaged is refused (%#)', async (text) => {
    await expect(parse(text, null)).rejects.toThrow(/cannot be read|passphrase/);
    await expect(parse(text, 'x')).rejects.toThrow(/cannot be read|passphrase/);
  });
});

describe('a generated key pair', () => {
  it('is accepted by OpenSSH, and its halves match', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-key-'));
    try {
      const { publicKey, privateKey } = generateSshKeyPair();
      registerPrivateKey(privateKey);
      const file = path.join(folder, 'key');
      writeFileSync(file, privateKey, { mode: 0o600 });
      const derived = execFileSync(SSH_KEYGEN, ['-y', '-f', file], { encoding: 'utf8' });
      expect(publicKey).toMatch(/^ssh-ed25519 [A-Za-z0-9+/]+=* ops-center$/);
      expect(derived.trim().split(' ').slice(0, 2)).toEqual(publicKey.split(' ').slice(0, 2));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('is valid when its public key begins with a zero byte, as one of 256 does', async () => {
    let zeros = 0;
    for (let made = 0; made < 20_000 && zeros === 0; made += 1) {
      const { publicKey, privateKey } = generateSshKeyPair();
      const blob = Buffer.from(publicKey.split(' ')[1] ?? '', 'base64');
      expect(blob).toHaveLength(51);
      if (blob[19] !== 0) continue;
      zeros += 1;
      registerPrivateKey(privateKey);
      expect(await isUsable(privateKey, null)).toBe(true);
      expect(ssh2.utils.parseKey(publicKey)).not.toBeInstanceOf(Error);
    }
    expect(zeros).toBe(1);
  });
});
