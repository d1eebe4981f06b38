import { describe, expect, it } from '@jest/globals';
import { createPrivateKey } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { Worker } from 'node:worker_threads';
import {
  findPrivateKeyInputProblem,
  findPrivateKeyProblem,
  parsePrivateKey,
} from '../../../src/lib/ssh/private-key.ts';
import { decryptPrivateKey } from '../../../src/lib/ssh/private-key-decryption.ts';
import { PrivateKeyBusyError } from '../../../src/lib/ssh/ssh-error.ts';
import { createLockedKey } from '../../support/locked-key.ts';
import {
  craftEncryptedKey,
  craftOpenSshKey,
  toPem,
  craftRsaKey,
} from '../../support/crafted-private-keys.ts';
import type { Owner } from '../../../src/lib/owner.ts';
import { neverAborted } from './servers.ts';

const PASSPHRASE = 'a passphrase of this test';
const PBKDF2 = '2a864886f70d01050c';
const SCRYPT = '2b06010401da47040b';

const byOwner = (owner: Owner = 'user:test', signal = neverAborted()) => ({ owner, signal });

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

  it('is limited in the bcrypt rounds of OpenSSH, before anything is derived', async () => {
    expect(findPrivateKeyInputProblem(craftOpenSshKey({ rounds: 128 }))).toBeUndefined();
    for (const rounds of [129, 1_024, 2 ** 32 - 1]) {
      const key = craftOpenSshKey({ rounds });
      expect(findPrivateKeyInputProblem(key)).toMatch(/more than 128 rounds.*ssh-keygen -p -a 24/);
      await expect(parsePrivateKey(key, 'x', byOwner())).rejects.toThrow(/more than 128 rounds/);
    }
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
    await expect(parsePrivateKey(key, null, byOwner())).rejects.toThrow(/at most 8192 bits/);
  });

  it('is checked again after decryption', async () => {
    const plain = createPrivateKey(toPem('RSA PRIVATE KEY', craftRsaKey(8_400)));
    const options = { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: PASSPHRASE } as const;
    const key = plain.export(options).toString();
    expect(findPrivateKeyProblem(key, PASSPHRASE)).toBeUndefined();
    await expect(parsePrivateKey(key, PASSPHRASE, byOwner())).rejects.toThrow(/at most 8192 bits/);
  });
});

/** Threads that decrypt when the test says so. */
function createThreads() {
  interface Thread {
    key: string;
    finish(): void;
  }
  const waiting: ((thread: Thread) => void)[] = [];
  const unseen: Thread[] = [];
  let count = 0;
  return {
    count: () => count,
    start: ({ key }: { key: string }): Worker => {
      const worker = Object.assign(new EventEmitter(), { terminate: () => Promise.resolve(0) });
      const thread = {
        key,
        finish() {
          worker.emit('message', `PEM of ${key}`);
          worker.emit('exit', 0);
        },
      };
      count += 1;
      const waiter = waiting.shift();
      if (waiter === undefined) unseen.push(thread);
      else waiter(thread);
      return worker as unknown as Worker;
    },
    /** Resolves with the next thread that is started. */
    started: () =>
      new Promise<Thread>((resolve) => {
        const thread = unseen.shift();
        if (thread === undefined) waiting.push(resolve);
        else resolve(thread);
      }),
  };
}

describe('decryptions of private keys', () => {
  const slow = createLockedKey(32, PASSPHRASE);
  const quick = createLockedKey(1, PASSPHRASE);

  it('run one at a time for an owner, so that another owner does not wait for all of them', async () => {
    const threads = createThreads();
    const decrypt = (key: string) =>
      decryptPrivateKey(key, PASSPHRASE, byOwner(`user:${key}`), threads.start);
    const many = [decrypt('many'), decrypt('many'), decrypt('many')];
    const first = await threads.started();
    const other = decrypt('other');
    const second = await threads.started();
    expect([first.key, second.key, threads.count()]).toEqual(['many', 'other', 2]);
    second.finish();
    expect(await other).toBe('PEM of other');
    const next = threads.started();
    first.finish();
    expect([(await next).key, threads.count()]).toEqual(['many', 3]);
    (await next).finish();
    (await threads.started()).finish();
    expect(await Promise.all(many)).toEqual(['PEM of many', 'PEM of many', 'PEM of many']);
  });

  it('reject as soon as the signal is aborted, running or queued', async () => {
    const stop = new AbortController();
    const decrypt = () => parsePrivateKey(slow, PASSPHRASE, byOwner('user:test', stop.signal));
    const all = Promise.allSettled([decrypt(), decrypt(), decrypt()]);
    stop.abort(new Error('gone'));
    for (const outcome of await all)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { message: 'gone' } });
    expect(await parsePrivateKey(quick, PASSPHRASE, byOwner())).toMatchObject({ type: 'ssh-ed25519' });
  }, 60_000);

  it('go on after threads could not be started', async () => {
    const fail = () => {
      throw new Error('no thread');
    };
    for (const owner of ['user:1', 'user:2', 'user:2'] as const)
      await expect(decryptPrivateKey(quick, PASSPHRASE, byOwner(owner), fail)).rejects.toThrow(
        PrivateKeyBusyError,
      );
    expect(await parsePrivateKey(quick, PASSPHRASE, byOwner('user:2'))).toMatchObject({
      type: 'ssh-ed25519',
    });
  }, 60_000);
});
