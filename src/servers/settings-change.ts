import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import type { Runner } from '../runners/runner.ts';
import { changeConfig } from './config-change.ts';
import type { UpdateServer } from './schema.ts';
import type { SecretBinding } from './secret-encryption.ts';
import type { ServerSettings, StoredServer } from './servers-store.ts';

/** What a change makes of a server. */
export interface ChangedSettings {
  settings: ServerSettings;
  /** True where the configuration is what it was, so that what it refers to need not be judged again. */
  isSameConfig: boolean;
  /** True where the last test still says something of it. */
  isTestStillValid: boolean;
}

/**
 * Merges a change into a server's settings: what is missing stays. One that is switched on becomes the default
 * where no other can be used.
 * @throws AppError as of {@link changeConfig}.
 */
export async function changeSettings(
  { keyring, runner, owner }: { keyring: Keyring; runner: Runner; owner: Owner },
  servers: readonly StoredServer[],
  server: StoredServer,
  change: UpdateServer,
): Promise<ChangedSettings> {
  const place: SecretBinding = { owner, serverId: server.id, hostKey: server.hostKey };
  const { config, hostKey, isSame } =
    change.connection_config === undefined
      ? { config: server.config, hostKey: server.hostKey, isSame: true }
      : await changeConfig(keyring, runner, place, server.config, change.connection_config);
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

/** Whether one that is added to these, or switched on beside them, is the first that can be used. */
export function isFirstActive(others: readonly StoredServer[]): boolean {
  return others.every((server) => !server.isActive && !server.isDefault);
}
