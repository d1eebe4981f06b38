import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createPrivateFolder, secretsFolder } from './data-dir.ts';

/** Secrets that the quick start generates, one file each in DATA_DIR/secrets. */
export type SecretName =
  | 'postgres-superuser'
  | 'postgres-owner'
  | 'postgres-app'
  | 'keycloak-admin'
  | 'keycloak-web-client'
  | 'keycloak-service-client'
  | 'keycloak-vault-client';

export interface Secrets {
  /** Returns the secret; generates it on first use. */
  get(name: SecretName): string;
  /** Path of the secret's file. */
  fileOf(name: SecretName): string;
  /** Returns true if the secret has been generated. */
  has(name: SecretName): boolean;
}

/** Random secrets, stored in the data directory. Only its owner can read them. */
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

/** Writes a file atomically. Only its owner can read it. */
export function writePrivateFile(file: string, text: string): void {
  const draft = `${file}.${process.pid}.new`;
  writeFileSync(draft, text, { mode: 0o600 });
  renameSync(draft, file);
}
