import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { parseJson } from '../lib/json.ts';
import type { Owner } from '../lib/owner.ts';
import type { HostKey } from '../lib/ssh/host-key.ts';
import type { Runner } from '../runners/runner.ts';

const VERSION = 1;
const KIND = 'server_secret';

/** The encrypted content: the secret with its owner, server, field and destination. */
const SecretPlaintext = z.strictObject({
  v: z.literal(VERSION),
  kind: z.literal(KIND),
  owner: z.string(),
  server: z.string(),
  field: z.string(),
  destination: z.string(),
  value: z.unknown(),
});

/** A configuration as it is stored: secret members encrypted, the others in the clear. */
export type EncryptedConfig = Record<string, unknown>;

/** The server that the secrets of a configuration are bound to. */
export interface SecretBinding {
  owner: Owner;
  serverId: string;
  hostKey: HostKey | null;
}

/**
 * Encrypts the secret members of a configuration, each with its owner, server and field, and with a digest of the
 * destination, which is determined by the whole configuration and the host key.
 * @param config as parsed by the runner's schema.
 */
export function encryptConfig(
  keyring: Keyring,
  runner: Runner,
  binding: SecretBinding,
  config: unknown,
): EncryptedConfig {
  const destination = hashDestination(runner, config, binding.hostKey);
  const encrypted: EncryptedConfig = { ...(config as object) };
  for (const field of listSecretFields(runner, encrypted)) {
    const plaintext: z.output<typeof SecretPlaintext> = {
      v: VERSION,
      kind: KIND,
      owner: binding.owner,
      server: binding.serverId,
      field,
      destination,
      value: encrypted[field],
    };
    encrypted[field] = keyring.encrypt(JSON.stringify(plaintext));
  }
  return encrypted;
}

/**
 * Decrypts a stored configuration. Fernet has no associated data: without the comparisons, an attacker with write
 * access to the database could have a secret sent to a host of their own. The compared destination is computed from
 * the returned configuration and the host key.
 * @returns the configuration as parsed by the runner; undefined when a secret does not decrypt, is bound to another
 *   server or field, or when the rest was altered. These cases are not distinguished.
 */
export async function decryptConfig(
  keyring: Keyring,
  runner: Runner,
  binding: SecretBinding,
  stored: EncryptedConfig,
): Promise<unknown> {
  const config: Record<string, unknown> = { ...stored };
  const destinations = new Set<string>();
  for (const field of listSecretFields(runner, stored)) {
    const plaintext = decryptSecret(keyring, stored[field]);
    const isBound =
      plaintext?.owner === binding.owner &&
      plaintext.server === binding.serverId &&
      plaintext.field === field;
    if (!isBound) return undefined;
    destinations.add(plaintext.destination);
    config[field] = plaintext.value;
  }
  const parsed = await runner.config.safeParseAsync(config);
  if (!parsed.success) return undefined;
  const destination = hashDestination(runner, parsed.data, binding.hostKey);
  return [...destinations].every((each) => each === destination) ? parsed.data : undefined;
}

/** The names of the secret members that a configuration contains, encrypted or not. */
export function listSecretFields(runner: Runner, config: Readonly<Record<string, unknown>>): string[] {
  return runner.secretFields.filter((field) => config[field] !== undefined && config[field] !== null);
}

/** SHA-256, in hex, of everything that determines where the secrets of a configuration go. */
export function hashDestination(runner: Runner, config: unknown, hostKey: HostKey | null): string {
  const destination = { type: runner.type, destination: runner.destination(config, hostKey) };
  return createHash('sha256').update(canonicalJson(destination)).digest('hex');
}

function decryptSecret(keyring: Keyring, ciphertext: unknown): z.output<typeof SecretPlaintext> | undefined {
  const plaintext = typeof ciphertext === 'string' ? keyring.decrypt(ciphertext) : undefined;
  return SecretPlaintext.safeParse(parseJson(plaintext ?? '')).data;
}

/** JSON with sorted members, so that equal values have equal text. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_name, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  );
}
