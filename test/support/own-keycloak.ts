import { chmodSync, cpSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { keycloakHome } from '../../src/dev/quickstart/keycloak/archive.ts';
import { keycloakDataFolder } from '../../src/dev/quickstart/keycloak/keycloak.ts';
import { TEST_DATA_DIR } from './postgres-and-keycloak.ts';
// The copy of the realms exists when the servers are ready.
import './servers-in-use.ts';

/**
 * Creates the data directory of an earlier start of the quick start with its own Keycloak, with the open folders of an
 * earlier version. A start from it downloads and builds nothing.
 */
export function copyTestKeycloak(dataDir: string): void {
  mkdirSync(dataDir);
  const realms = readdirSync(TEST_DATA_DIR).find((name) => name.startsWith('realms-')) ?? '';
  const folders = [
    [keycloakHome(TEST_DATA_DIR), keycloakHome(dataDir)],
    [path.join(TEST_DATA_DIR, realms), keycloakDataFolder(dataDir)],
    [path.join(TEST_DATA_DIR, 'secrets'), path.join(dataDir, 'secrets')],
  ] as const;
  for (const [from, to] of folders) {
    cpSync(from, to, { recursive: true });
    chmodSync(to, 0o755);
  }
}
