import { readFileSync } from 'node:fs';
import { readConfig, type Config, type Environment } from '../config/config.ts';
import { StartError } from '../lib/errors.ts';

/** Reads the configuration, including secrets in files (NAME_FILE). @throws ConfigError listing all errors. */
export function loadConfig(environment: Environment): Config {
  return readConfig(environment, (file) => readFileSync(file, 'utf8'));
}

/** Reads a single setting; undefined if it is not set. */
export function readSetting(environment: Environment, name: string): string | undefined {
  const file = environment[`${name}_FILE`];
  return file ? readFileSync(file, 'utf8').trim() : dropEmptySettings(environment)[name];
}

/** Compose and many shells express an unset variable as an empty value. */
export function dropEmptySettings(environment: Environment): Environment {
  return Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ''));
}

/** Overrides settings. Also removes the NAME_FILE of each, because only one of the two can be set. */
export function overrideSettings(environment: Environment, overrides: Environment): Environment {
  const kept = Object.entries(environment).filter(
    ([name]) => !(name.endsWith('_FILE') && name.slice(0, -5) in overrides),
  );
  return { ...Object.fromEntries(kept), ...overrides };
}

/** @param command as typed in a shell. @throws StartError if DEPLOY_ENV is set. */
export function assertLocalMode(environment: Environment, command: string): void {
  if (!environment['DEPLOY_ENV']) return;
  throw new StartError(
    `\`${command}\` is for local mode, and DEPLOY_ENV is set. A deployment runs \`node dist/cli/main.js serve\`.`,
  );
}
