import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import type { Runner } from '../runners/runner.ts';
import { changeConfig } from './config-change.ts';
import type { UpdateServer } from './schema.ts';
import type { SecretBinding } from './secret-encryption.ts';
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
  const isSwitchedOn = isActive && !server.isActive;
  const isDefault = change.is_default ?? (server.isDefault || (isSwitchedOn && isFirstActive(others)));
  return {
    settings: { name: change.name ?? server.name, config, hostKey, workspacePath, isActive, isDefault },
    isSameConfig: isSame,
    isTestStillValid: isSame && workspacePath === server.workspacePath,
  };
}

/** Whether a server that is added or switched on is the first one: no other is active or the default. */
export function isFirstActive(others: readonly StoredServer[]): boolean {
  return others.every((server) => !server.isActive && !server.isDefault);
}
