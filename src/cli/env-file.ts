import { randomBytes } from 'node:crypto';
import { appendFileSync, chmodSync, existsSync, readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import type { Environment } from '../config/config.ts';
import { writePrivateFile } from '../dev/quickstart/secrets.ts';

/** The settings in a `.env` file; an empty record when there is none. */
export function readEnvFile(file: string): Environment {
  return existsSync(file) ? parseEnv(readFileSync(file, 'utf8')) : {};
}

/** What makes a setting that nobody has to choose. */
export type SettingGenerators = Record<string, () => string>;

/** 32 random bytes: a password or a key that needs no quotes anywhere. */
export function randomSecret(): string {
  return randomBytes(32).toString('base64url');
}

/** What every installation has of its own. */
export const APP_SECRETS: SettingGenerators = {
  // As Fernet keys are written: with padding.
  ENCRYPTION_KEY: () => `${randomSecret()}=`,
  SESSION_SECRET: randomSecret,
};

/**
 * Sees to it that generated settings are set: those that are set nowhere are made and added to the file. What
 * stands in the file is never changed; values are never printed.
 * @param environment the settings in force, the file's included.
 * @returns the names that were added.
 */
export function ensureGeneratedSettings(
  file: string,
  environment: Environment,
  generators: SettingGenerators = APP_SECRETS,
): string[] {
  const missing = Object.entries(generators).filter(
    ([name]) => !environment[name] && !environment[`${name}_FILE`],
  );
  if (missing.length === 0) return [];
  const lines = missing.map(([name, generate]) => `${name}=${generate()}\n`).join('');
  if (existsSync(file)) {
    const before = readFileSync(file, 'utf8');
    // First closed, then written: the secrets must not be readable for a moment either.
    chmodSync(file, 0o600);
    appendFileSync(file, `${before === '' || before.endsWith('\n') ? '' : '\n'}${lines}`);
  } else {
    writePrivateFile(file, ENV_HEADER + lines);
  }
  return missing.map(([name]) => name);
}

export const ENV_HEADER = `# Settings of this installation; .env.example lists them all. Keep this file: without ENCRYPTION_KEY
# no stored key can be read again.
`;
