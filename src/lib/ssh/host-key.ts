import { createHash } from 'node:crypto';

/** An SSH host key as people compare it. */
export interface SshHostKey {
  /** As in the SSH protocol, e.g. `ssh-ed25519`. */
  type: string;
  /** `SHA256:` and unpadded base64, as OpenSSH prints it. */
  fingerprint: string;
}

/** What a key of each type may sign with, the best first. SHA-1 (`ssh-rsa`) and DSA are not accepted. */
const SIGNATURE_ALGORITHMS_BY_KEY_TYPE: ReadonlyMap<string, readonly string[]> = new Map([
  ['ssh-ed25519', ['ssh-ed25519']],
  ['ecdsa-sha2-nistp256', ['ecdsa-sha2-nistp256']],
  ['ecdsa-sha2-nistp384', ['ecdsa-sha2-nistp384']],
  ['ecdsa-sha2-nistp521', ['ecdsa-sha2-nistp521']],
  ['ssh-rsa', ['rsa-sha2-512', 'rsa-sha2-256']],
]);

/**
 * Reads the public key that a server shows (RFC 4253, 6.6: the type's name comes first).
 * @returns undefined for a type that is not accepted; a server's own text never becomes a type.
 */
export function parseHostKey(blob: Buffer): SshHostKey | undefined {
  if (blob.length < 4) return undefined;
  const type = blob.toString('latin1', 4, 4 + Math.min(blob.readUInt32BE(0), 64));
  if (!SIGNATURE_ALGORITHMS_BY_KEY_TYPE.has(type)) return undefined;
  const digest = createHash('sha256').update(blob).digest('base64').replace(/=+$/, '');
  return { type, fingerprint: `SHA256:${digest}` };
}

/** True when both are the same key. */
export function isSameHostKey(one: SshHostKey, other: SshHostKey): boolean {
  return one.type === other.type && one.fingerprint === other.fingerprint;
}

/**
 * The algorithms to ask a server for. Those of the pinned key come first, so that a server that was given a
 * further key goes on to show the one that people confirmed.
 */
export function listHostKeyAlgorithms(pinned: SshHostKey | null): string[] {
  const all = [...SIGNATURE_ALGORITHMS_BY_KEY_TYPE.values()].flat();
  const first = SIGNATURE_ALGORITHMS_BY_KEY_TYPE.get(pinned?.type ?? '') ?? [];
  return [...first, ...all.filter((name) => !first.includes(name))];
}
