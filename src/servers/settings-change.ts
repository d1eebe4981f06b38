import { isDeepStrictEqual } from 'node:util';
import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import type { HostKey } from '../lib/ssh/host-key.ts';
import type { Runner } from '../runners/runner.ts';
import { invalidConfig, parseConfig, assertNoMasks, type ConfigInput } from './config-input.ts';
import { STORED_SECRET_MASK, type UpdateServer } from './schema.ts';
import {
  hashDestination,
  decryptConfig,
  encryptConfig,
  listSecretFields,
  type SecretBinding,
  type EncryptedConfig,
} from './secret-encryption.ts';
import type { ServerSettings, StoredServer } from './servers-store.ts';

/** The settings of a server after a change. */
export interface ChangedSettings {
  settings: ServerSettings;
  /** True when the configuration is unchanged, so that its jump servers need no check. */
  isSameConfig: boolean;
  /** True when the last test still applies. */
  isTestStillValid: boolean;
}

/**
 * Merges a change into a server's settings: missing members stay. A server that is switched on becomes the default
 * when no other server is active or the default.
 * @throws AppError as {@link changeConfig}.
 */
export async function changeSettings(
  { keyring, runner, owner }: { keyring: Keyring; runner: Runner; owner: Owner },
  servers: readonly StoredServer[],
  server: StoredServer,
  change: UpdateServer,
): Promise<ChangedSettings> {
  const binding: SecretBinding = { owner, serverId: server.id, hostKey: server.hostKey };
  const { config, hostKey, isSame } =
    change.connection_config === undefined
      ? { config: server.config, hostKey: server.hostKey, isSame: true }
      : await changeConfig(keyring, runner, binding, server.config, change.connection_config);
  const isActive = change.is_active ?? server.isActive;
  const workspacePath = change.workspace_path === undefined ? server.workspacePath : change.workspace_path;
  const others = servers.filter((each) => each !== server);
  const tokenRuns = change.token_runs ?? server.tokenRuns;
  const isSwitchedOn = isActive && !server.isActive;
  const isDefault = change.is_default ?? (server.isDefault || (isSwitchedOn && isFirstActive(others)));
  return {
    settings: {
      ...{ name: change.name ?? server.name, config, hostKey, workspacePath },
      ...{ isActive, isDefault, tokenRuns },
    },
    isSameConfig: isSame,
    isTestStillValid: isSame && workspacePath === server.workspacePath,
  };
}

/** Whether a server that is added or switched on is the first one: no other is active or the default. */
export function isFirstActive(others: readonly StoredServer[]): boolean {
  return others.every((server) => !server.isActive && !server.isDefault);
}

/** A configuration after a change. */
interface ChangedConfig {
  config: EncryptedConfig;
  hostKey: HostKey | null;
  /** True when the change alters nothing. */
  isSame: boolean;
}

/**
 * Merges a change into a stored configuration. A missing member stays, and so does a secret that is sent as its mask;
 * null clears a member. A stored secret goes only to its stored destination: if its destination changes, the secret
 * must be sent again. If the address changes, the host key must be confirmed again.
 * @throws AppError `validation_failed` (400) with the invalid members; `key_undecryptable` (424) when stored members
 *   are to stay and do not decrypt.
 */
async function changeConfig(
  keyring: Keyring,
  runner: Runner,
  binding: SecretBinding,
  stored: EncryptedConfig,
  input: ConfigInput,
): Promise<ChangedConfig> {
  assertNoMasks(input, listSecretFields(runner, stored));
  const decrypted = await decryptConfig(keyring, runner, binding, stored);
  if (decrypted === undefined) return replaceConfig(keyring, runner, binding, input);
  const sent = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== STORED_SECRET_MASK));
  const parsed = await parseConfig(runner, sent, decrypted as ConfigInput);
  if ('errors' in parsed) throw invalidConfig(parsed.errors);
  const { config } = parsed;
  const isDestinationSame = (field: string | null) => {
    const [old, next] = [decrypted, config].map((each) =>
      hashFieldDestination(runner, each, field, binding.hostKey),
    );
    return old === next;
  };
  // What receives a secret on a host is no part of the address that presented the key.
  const hostKey = isDestinationSame(null) ? binding.hostKey : null;
  const isSame = isDeepStrictEqual(decrypted, config);
  const kept = listSecretFields(runner, config as ConfigInput).filter((field) => !(field in sent));
  assertNoKeptSecrets(kept.filter((field) => !isDestinationSame(field)));
  return { config: encryptConfig(keyring, runner, { ...binding, hostKey }, config), hostKey, isSame };
}

/**
 * Replaces a configuration that does not decrypt. The change must be a whole configuration, because the stored
 * address may have been altered to receive the secret that is entered now.
 */
async function replaceConfig(
  keyring: Keyring,
  runner: Runner,
  binding: SecretBinding,
  input: ConfigInput,
): Promise<ChangedConfig> {
  const parsed = Object.values(input).includes(STORED_SECRET_MASK)
    ? undefined
    : await parseConfig(runner, input);
  if (parsed === undefined || 'errors' in parsed) {
    throw new AppError(
      'key_undecryptable',
      'The stored secrets do not decrypt, or were stored for another address. Send the whole connection_config, including the secrets.',
      parsed === undefined ? {} : { errors: invalidConfig(parsed.errors).errors ?? [] },
    );
  }
  const config = encryptConfig(keyring, runner, { ...binding, hostKey: null }, parsed.config);
  return { config, hostKey: null, isSame: false };
}

/** The destination of one secret: the digest of the configuration without its other secrets. Null is the address alone. */
function hashFieldDestination(
  runner: Runner,
  config: unknown,
  field: string | null,
  hostKey: HostKey | null,
): string {
  const others = runner.secretFields.filter((each) => each !== field).map((each) => [each, null] as const);
  return hashDestination(runner, { ...(config as object), ...Object.fromEntries(others) }, hostKey);
}

function assertNoKeptSecrets(fields: readonly string[]): void {
  const message =
    'must be sent again, because a stored secret is only used for the destination it was stored for';
  if (fields.length > 0) throw invalidConfig(fields.map((path) => ({ path, message })));
}
