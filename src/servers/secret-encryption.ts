import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import type { HostKey, Runner } from '../runners/runner.ts';

const VERSION = 1;
const KIND = 'server_secret';

/** What is sealed: the secret with everything that says whose it is and where it may go. */
const SecretPlaintext = z.strictObject({
  v: z.literal(VERSION),
  kind: z.literal(KIND),
  owner: z.string(),
  server: z.string(),
  field: z.string(),
  destination: z.string(),
  value: z.unknown(),
});

/** A configuration as it is stored: secret members as tokens, the others in the clear. */
export type EncryptedConfig = Record<string, unknown>;

/** Where a configuration stands. */
export interface SecretBinding {
  owner: Owner;
  serverId: string;
  hostKey: HostKey | null;
}

/**
 * Seals the secret members of a configuration, each with its owner, server and field, and with a digest of the
 * destination that the whole configuration and the host key say.
 * @param config as the runner's schema has parsed it.
 */
export function encryptConfig(
  keyring: Keyring,
  runner: Runner,
  place: SecretBinding,
  config: unknown,
): EncryptedConfig {
  const destination = hashDestination(runner, config, place.hostKey);
  const sealed: EncryptedConfig = { ...(config as object) };
  for (const field of listSecretFields(runner, sealed)) {
    const content: z.output<typeof SecretPlaintext> = {
      v: VERSION,
      kind: KIND,
      owner: place.owner,
      server: place.serverId,
      field,
      destination,
      value: sealed[field],
    };
    sealed[field] = keyring.encrypt(JSON.stringify(content));
  }
  return sealed;
}

/**
 * Opens a stored configuration. Fernet has no associated data: without the comparisons, whoever can write to the
 * database could have a secret sent to a host of their own. The destination is that of the very configuration and
 * host key that are answered.
 * @returns the configuration as the runner parses it; undefined when a secret does not decrypt, was sealed for
 *   another place, or the rest was altered. Which of these is not told apart.
 */
export async function decryptConfig(
  keyring: Keyring,
  runner: Runner,
  place: SecretBinding,
  stored: EncryptedConfig,
): Promise<unknown> {
  const config: Record<string, unknown> = { ...stored };
  const destinations = new Set<string>();
  for (const field of listSecretFields(runner, stored)) {
    const sealed = decryptSecret(keyring, stored[field]);
    const isInPlace =
      sealed?.owner === place.owner && sealed.server === place.serverId && sealed.field === field;
    if (!isInPlace) return undefined;
    destinations.add(sealed.destination);
    config[field] = sealed.value;
  }
  const parsed = await runner.config.safeParseAsync(config);
  if (!parsed.success) return undefined;
  const destination = hashDestination(runner, parsed.data, place.hostKey);
  return [...destinations].every((each) => each === destination) ? parsed.data : undefined;
}

/** The names of the secret members that a configuration has, sealed or not. */
export function listSecretFields(runner: Runner, config: Readonly<Record<string, unknown>>): string[] {
  return runner.secretFields.filter((field) => config[field] !== undefined && config[field] !== null);
}

/** A digest of everything that says where the secrets of a configuration go. Hex. */
export function hashDestination(runner: Runner, config: unknown, hostKey: HostKey | null): string {
  const destination = { type: runner.type, destination: runner.destination(config, hostKey) };
  return createHash('sha256').update(canonicalJson(destination)).digest('hex');
}

function decryptSecret(keyring: Keyring, token: unknown): z.output<typeof SecretPlaintext> | undefined {
  const plaintext = typeof token === 'string' ? keyring.decrypt(token) : undefined;
  if (plaintext === undefined) return undefined;
  try {
    return SecretPlaintext.safeParse(JSON.parse(plaintext)).data;
  } catch {
    return undefined;
  }
}

/** JSON with sorted members: one value has one spelling. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_name, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  );
}
