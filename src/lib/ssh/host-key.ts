import { createHash } from 'node:crypto';

/** An SSH host key as users compare it. */
export interface HostKey {
  /** As in the SSH protocol, e.g. `ssh-ed25519`. */
  type: string;
  /** `SHA256:` and unpadded base64, as OpenSSH prints it. */
  fingerprint: string;
}

/** The accepted signature algorithms per key type, the preferred first. SHA-1 (`ssh-rsa`) and DSA are refused. */
const SIGNATURE_ALGORITHMS_BY_KEY_TYPE: ReadonlyMap<string, readonly string[]> = new Map([
  ['ssh-ed25519', ['ssh-ed25519']],
  ['ecdsa-sha2-nistp256', ['ecdsa-sha2-nistp256']],
  ['ecdsa-sha2-nistp384', ['ecdsa-sha2-nistp384']],
  ['ecdsa-sha2-nistp521', ['ecdsa-sha2-nistp521']],
  ['ssh-rsa', ['rsa-sha2-512', 'rsa-sha2-256']],
]);

/**
 * Parses the public key that a server shows (RFC 4253, 6.6: the name of the type comes first).
 * @returns undefined for a type that is not accepted, so that a type is never arbitrary text of the server.
 */
export function parseHostKey(blob: Buffer): HostKey | undefined {
  if (blob.length < 4) return undefined;
  const type = blob.toString('latin1', 4, 4 + Math.min(blob.readUInt32BE(0), 64));
  if (!SIGNATURE_ALGORITHMS_BY_KEY_TYPE.has(type)) return undefined;
  const digest = createHash('sha256').update(blob).digest('base64').replace(/=+$/, '');
  return { type, fingerprint: `SHA256:${digest}` };
}

export function isSameHostKey(first: HostKey, second: HostKey): boolean {
  return first.type === second.type && first.fingerprint === second.fingerprint;
}

/**
 * The host key algorithms to offer. Those of the confirmed key come first, so that a server with several keys
 * keeps showing the confirmed one.
 */
export function listHostKeyAlgorithms(confirmed: HostKey | null): string[] {
  const all = [...SIGNATURE_ALGORITHMS_BY_KEY_TYPE.values()].flat();
  const first = SIGNATURE_ALGORITHMS_BY_KEY_TYPE.get(confirmed?.type ?? '') ?? [];
  return [...first, ...all.filter((name) => !first.includes(name))];
}
