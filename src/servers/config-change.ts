import { isDeepStrictEqual } from 'node:util';
import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { HostKey, Runner } from '../runners/runner.ts';
import { invalidConfig, parseConfig, assertNoMasks, type ConfigInput } from './config-input.ts';
import { STORED_SECRET_MASK } from './schema.ts';
import {
  hashDestination,
  decryptConfig,
  encryptConfig,
  listSecretFields,
  type SecretBinding,
  type EncryptedConfig,
} from './secret-encryption.ts';

/** What a change makes of a configuration. */
export interface ChangedConfig {
  config: EncryptedConfig;
  hostKey: HostKey | null;
  /** True where nothing has changed at all. */
  isSame: boolean;
}

/**
 * Merges a change into a stored configuration: what is missing stays, and so does a secret that is sent as its
 * mask; null clears. A secret that stays must stay where it was meant to go: with another destination of its own it
 * is to be sent again, and with any other destination the host key is to be confirmed again.
 * @throws AppError `validation_failed` (400) that names the members at fault; `key_undecryptable` (424) where
 *   something is to stay that does not open.
 */
export async function changeConfig(
  keyring: Keyring,
  runner: Runner,
  place: SecretBinding,
  stored: EncryptedConfig,
  input: ConfigInput,
): Promise<ChangedConfig> {
  assertNoMasks(input, listSecretFields(runner, stored));
  const opened = await decryptConfig(keyring, runner, place, stored);
  if (opened === undefined) return replaceConfig(keyring, runner, place, input);
  const sent = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== STORED_SECRET_MASK));
  const parsed = await parseConfig(runner, { ...(opened as object), ...sent });
  if ('faults' in parsed) throw invalidConfig(parsed.faults);
  const { config } = parsed;
  const [before, after] = [opened, config].map((each) => hashDestination(runner, each, place.hostKey));
  const hostKey = before === after ? place.hostKey : null;
  const isSame = isDeepStrictEqual(opened, config);
  const kept = listSecretFields(runner, config as ConfigInput).filter((field) => !(field in sent));
  assertNoKeptSecrets(
    kept.filter((field) => {
      const [old, next] = [opened, config].map((each) =>
        hashFieldDestination(runner, each, field, place.hostKey),
      );
      return old !== next;
    }),
  );
  return { config: encryptConfig(keyring, runner, { ...place, hostKey }, config), hostKey, isSame };
}

/**
 * Takes a change for a whole configuration, since what is stored cannot be trusted: its address may have been
 * altered to receive the secret that is now entered again.
 */
async function replaceConfig(
  keyring: Keyring,
  runner: Runner,
  place: SecretBinding,
  input: ConfigInput,
): Promise<ChangedConfig> {
  const parsed = Object.values(input).includes(STORED_SECRET_MASK)
    ? undefined
    : await parseConfig(runner, input);
  if (parsed === undefined || 'faults' in parsed) {
    throw new AppError(
      'key_undecryptable',
      'The stored secrets do not open, or were stored for another address: nothing of them is kept. Send the whole connection_config, secrets included.',
      parsed === undefined ? {} : { errors: invalidConfig(parsed.faults).errors ?? [] },
    );
  }
  const config = encryptConfig(keyring, runner, { ...place, hostKey: null }, parsed.config);
  return { config, hostKey: null, isSame: false };
}

/** Where one secret would go if it were the only one: what is bound for the sake of another is no matter to it. */
function hashFieldDestination(
  runner: Runner,
  config: unknown,
  field: string,
  hostKey: HostKey | null,
): string {
  const others = runner.secretFields.filter((each) => each !== field).map((each) => [each, null] as const);
  return hashDestination(runner, { ...(config as object), ...Object.fromEntries(others) }, hostKey);
}

function assertNoKeptSecrets(fields: readonly string[]): void {
  const message = 'must be sent again: a stored secret goes only to the destination that it was stored for';
  if (fields.length > 0) throw invalidConfig(fields.map((path) => ({ path, message })));
}
