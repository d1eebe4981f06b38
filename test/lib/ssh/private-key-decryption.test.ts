import { describe, expect, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { createPrivateKey } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findPrivateKeyProblem, parsePrivateKey } from '../../../src/lib/ssh/private-key.ts';
import { registerPrivateKey } from '../../support/hosts.ts';
import {
  craftEncryptedKey,
  craftOpenSshKey,
  toPem,
  craftRsaKey,
} from '../../support/crafted-private-keys.ts';
import { neverAborted } from './servers.ts';

const PASSPHRASE = 'a passphrase of this test';
const PBKDF2 = '2a864886f70d01050c';
const SCRYPT = '2b06010401da47040b';

/** Creates an encrypted key with OpenSSH whose key derivation takes so many rounds. */
function lockedKey(rounds: number): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-key-'));
  try {
    const file = path.join(folder, 'key');
    const words = ['-q', '-t', 'ed25519', '-N', PASSPHRASE, '-a', String(rounds), '-f', file];
    execFileSync('ssh-keygen', words);
    const key = readFileSync(file, 'utf8');
    registerPrivateKey(key);
    return key;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('the key derivation of a private key', () => {
  it('is limited in the iterations of PKCS#8', () => {
    expect(findPrivateKeyProblem(craftEncryptedKey(PBKDF2, 1_000_000), 'x')).toBeUndefined();
    for (const iterations of [1_000_001, 2 ** 31 - 1])
      expect(findPrivateKeyProblem(craftEncryptedKey(PBKDF2, iterations), 'x')).toMatch(/takes too long/);
    expect(findPrivateKeyProblem(craftEncryptedKey(PBKDF2, 2 ** 40), 'x')).toMatch(
      /encryption .* is not supported/,
    );
  });

  it('is limited in the product of the scrypt parameters', () => {
    expect(findPrivateKeyProblem(craftEncryptedKey(SCRYPT, 16_384, 8, 1), 'x')).toBeUndefined();
    expect(findPrivateKeyProblem(craftEncryptedKey(SCRYPT, 131_072, 8, 2), 'x')).toMatch(/takes too long/);
    expect(findPrivateKeyProblem(craftEncryptedKey(SCRYPT, 2, 1, 2 ** 30), 'x')).toMatch(/takes too long/);
  });

  it('is limited in the bcrypt rounds of OpenSSH', () => {
    expect(findPrivateKeyProblem(craftOpenSshKey({ rounds: 1_024 }), 'x')).toBeUndefined();
    expect(findPrivateKeyProblem(craftOpenSshKey({ rounds: 1_025 }), 'x')).toMatch(/takes too long/);
  });

  it('is refused if it cannot be read', () => {
    expect(findPrivateKeyProblem(craftEncryptedKey('2a864886f70d01050e', 1), 'x')).toMatch(
      /encryption .* is not supported/,
    );
    const cut = toPem('ENCRYPTED PRIVATE KEY', Buffer.of(0x30, 0x10, 0));
    expect(findPrivateKeyProblem(cut, 'x')).toMatch(/encryption .* is not supported/);
  });
});

describe('the size of a private key', () => {
  it('is checked in the unencrypted part of an OpenSSH key, also with a passphrase', () => {
    expect(findPrivateKeyProblem(craftOpenSshKey({ publicBits: 8_200 }), null)).toMatch(/at most 8192 bits/);
    expect(findPrivateKeyProblem(craftOpenSshKey({ publicBits: 8_200, rounds: 24 }), 'x')).toMatch(
      /at most 8192 bits/,
    );
    expect(findPrivateKeyProblem(craftOpenSshKey({ type: 'ssh-dss' }), null)).toMatch(
      /type of private key is not supported/,
    );
  });

  it('is that of the private part, even if the public part differs', async () => {
    const key = craftOpenSshKey({ privateBits: 8_400 });
    expect(findPrivateKeyProblem(key, null)).toBeUndefined();
    await expect(parsePrivateKey(key, null, neverAborted())).rejects.toThrow(/at most 8192 bits/);
  });

  it('is checked again after decryption', async () => {
    const plain = createPrivateKey(toPem('RSA PRIVATE KEY', craftRsaKey(8_400)));
    const options = { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: PASSPHRASE } as const;
    const key = plain.export(options).toString();
    expect(findPrivateKeyProblem(key, PASSPHRASE)).toBeUndefined();
    await expect(parsePrivateKey(key, PASSPHRASE, neverAborted())).rejects.toThrow(/at most 8192 bits/);
  });
});

describe('decryptions of private keys', () => {
  const slow = lockedKey(32);
  const quick = lockedKey(1);

  it('run two at once, and further ones wait in order', async () => {
    const order: string[] = [];
    const open = async (key: string, name: string) => {
      await parsePrivateKey(key, PASSPHRASE, neverAborted());
      order.push(name);
    };
    await Promise.all([open(slow, 'slow'), open(slow, 'slow'), open(quick, 'quick')]);
    expect(order[0]).toBe('slow');
  }, 60_000);

  it('reject as soon as the signal is aborted, running or queued', async () => {
    const stop = new AbortController();
    const open = () => parsePrivateKey(slow, PASSPHRASE, stop.signal);
    const all = Promise.allSettled([open(), open(), open()]);
    stop.abort(new Error('gone'));
    for (const outcome of await all)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { message: 'gone' } });
    expect(await parsePrivateKey(quick, PASSPHRASE, neverAborted())).toMatchObject({ type: 'ssh-ed25519' });
  }, 60_000);
});
