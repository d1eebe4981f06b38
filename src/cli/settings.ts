import { readFileSync } from 'node:fs';
import { readConfig, type Config, type Environment } from '../config/config.ts';
import { StartError } from './start-error.ts';

/** Reads the configuration, with secrets from files where so configured. @throws ConfigError listing every fault. */
export function loadConfig(environment: Environment): Config {
  return readConfig(environment, (file) => readFileSync(file, 'utf8'));
}

/** One setting by itself, for commands that need no more; undefined when it is not set. */
export function readSetting(environment: Environment, name: string): string | undefined {
  const file = environment[`${name}_FILE`];
  return file ? readFileSync(file, 'utf8').trim() : dropEmptySettings(environment)[name];
}

/** An empty value is how Compose and many shells write "unset". */
export function dropEmptySettings(environment: Environment): Environment {
  return Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ''));
}

/** Lays settings over an environment; each takes the place of its NAME_FILE too, since only one of the two may be set. */
export function overrideSettings(environment: Environment, overrides: Environment): Environment {
  const kept = Object.entries(environment).filter(
    ([name]) => !(name.endsWith('_FILE') && name.slice(0, -5) in overrides),
  );
  return { ...Object.fromEntries(kept), ...overrides };
}

/** @throws StartError when the configuration is a deployment's. @param command as people type it. */
export function assertLocalMode(environment: Environment, command: string): void {
  if (!environment['DEPLOY_ENV']) return;
  throw new StartError(
    `\`${command}\` is for local mode, and DEPLOY_ENV is set. A deployment runs \`node dist/cli/main.js serve\`.`,
  );
}
