import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { registerPrivateKey } from './hosts.ts';

/** Creates an encrypted key with OpenSSH whose key derivation takes so many rounds. */
export function createLockedKey(rounds: number, passphrase: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-key-'));
  try {
    const file = path.join(folder, 'key');
    const words = ['-q', '-t', 'ed25519', '-N', passphrase, '-a', String(rounds), '-f', file];
    execFileSync('ssh-keygen', words);
    const key = readFileSync(file, 'utf8');
    registerPrivateKey(key);
    return key;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
