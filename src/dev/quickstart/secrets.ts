import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createPrivateFolder, secretsFolder } from './data-dir.ts';

/** Every secret that the quick start makes, one file each in DATA_DIR/secrets. */
export type SecretName =
  | 'postgres-superuser'
  | 'postgres-owner'
  | 'postgres-app'
  | 'keycloak-admin'
  | 'keycloak-web-client'
  | 'keycloak-service-client'
  | 'keycloak-vault-client';

export interface Secrets {
  /** The secret; made on first use. */
  get(name: SecretName): string;
  /** Where it is kept. */
  fileOf(name: SecretName): string;
  /** True when it was made before. */
  has(name: SecretName): boolean;
}

/** Random secrets that live as long as the data directory. Only its owner can read them. */
export function createSecrets(dataDir: string): Secrets {
  const folder = secretsFolder(dataDir);
  const fileOf = (name: SecretName) => path.join(folder, name);
  return {
    fileOf,
    has: (name) => existsSync(fileOf(name)),
    get(name) {
      if (existsSync(fileOf(name))) return readFileSync(fileOf(name), 'utf8').trim();
      createPrivateFolder(folder);
      const secret = randomBytes(32).toString('base64url');
      writePrivateFile(fileOf(name), `${secret}\n`);
      return secret;
    },
  };
}

/** Writes a file that only its owner can read, whole or not at all. */
export function writePrivateFile(file: string, text: string): void {
  const draft = `${file}.${process.pid}.new`;
  writeFileSync(draft, text, { mode: 0o600 });
  renameSync(draft, file);
}
