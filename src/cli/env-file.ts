import { randomBytes } from 'node:crypto';
import { appendFileSync, chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import type { Environment } from '../config/config.ts';
import { writePrivateFile } from '../dev/quickstart/secrets.ts';

/** Reads the settings of a `.env` file; an empty object if the file does not exist. */
export function readEnvFile(file: string): Environment {
  return existsSync(file) ? parseEnv(readFileSync(file, 'utf8')) : {};
}

/** Setting name -> function that generates its value. */
export type SettingGenerators = Record<string, () => string>;

/** 32 random bytes, as base64url: needs no quotes in a shell, a URL or an env file. */
export function randomSecret(): string {
  return randomBytes(32).toString('base64url');
}

/** Secrets that each installation generates for itself. */
export const APP_SECRETS: SettingGenerators = {
  // Fernet keys have base64 padding.
  ENCRYPTION_KEY: () => `${randomSecret()}=`,
  SESSION_SECRET: randomSecret,
};

/**
 * Generates missing settings and appends them to the file. Of the existing lines only those change that name a missing
 * setting without a value: they are removed. Values are not printed.
 * @param environment all settings, including those of the file.
 * @returns names of the added settings.
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
    // Restrict the mode before writing: the secrets must never be readable for other users.
    chmodSync(file, 0o600);
    const kept = missing.reduce((text, [name]) => removeEmptySetting(text, name), before);
    if (kept !== before) writeFileSync(file, kept);
    appendFileSync(file, `${kept === '' || kept.endsWith('\n') ? '' : '\n'}${lines}`);
  } else {
    writePrivateFile(file, ENV_HEADER + lines);
  }
  return missing.map(([name]) => name);
}

/** A setting on two lines, one of them empty, would leave open which one counts. */
function removeEmptySetting(text: string, name: string): string {
  return text.replace(
    new RegExp(`^[ \\t]*(?:export[ \\t]+)?${name}[ \\t]*=[ \\t]*(?:""|'')?[ \\t]*\\r?(?:\\n|$(?![^]))`, 'gm'),
    '',
  );
}

export const ENV_HEADER = `# Settings of this installation; .env.example lists them all. Keep this file: without ENCRYPTION_KEY
# no stored key can be decrypted.
`;
