import type { z } from 'zod';
import { AppError, type FieldError } from '../lib/errors.ts';
import type { Runner } from '../runners/runner.ts';
import { STORED_SECRET_MASK } from './schema.ts';

/** A `connection_config` as somebody sent it. */
export type ConfigInput = Readonly<Record<string, unknown>>;

/** As JSON; a kubeconfig with its certificates has some 10 KB. A list of servers shows up to 20 of them. */
const MAX_CONFIG_CHARACTERS = 128 * 1024;

/**
 * Parses a whole configuration by its runner's schema; a null counts as a member that is not there.
 * @returns undefined and the faults, of members of the configuration.
 */
export async function parseConfig(
  runner: Runner,
  input: ConfigInput,
): Promise<{ config: unknown } | { faults: FieldError[] }> {
  const present = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== null));
  const parsed = await runner.config.safeParseAsync(present);
  if (!parsed.success) return { faults: toConfigErrors(parsed.error) };
  const isTooLong = JSON.stringify(parsed.data).length > MAX_CONFIG_CHARACTERS;
  const message = `must have ${MAX_CONFIG_CHARACTERS} characters or fewer as JSON`;
  return isTooLong ? { faults: [{ path: '', message }] } : { config: parsed.data };
}

/** @throws AppError `validation_failed` (400) that names the members at fault. */
export async function getValidConfig(runner: Runner, input: ConfigInput): Promise<unknown> {
  const parsed = await parseConfig(runner, input);
  if ('faults' in parsed) throw invalidConfig(parsed.faults);
  return parsed.config;
}

/**
 * Refuses the mask of stored secrets: taken for a secret, it would be stored in the place of the real one.
 * @param kept members that may be the mask as a whole, since something is stored there.
 * @throws AppError `validation_failed` (400) that names the members at fault.
 */
export function assertNoMasks(input: ConfigInput, kept: readonly string[] = []): void {
  const faults = Object.entries(input)
    .filter(
      ([member, value]) => containsMask(value) && !(value === STORED_SECRET_MASK && kept.includes(member)),
    )
    .map(([path]) => ({ path, message: 'is what a stored secret reads as: send the secret itself' }));
  if (faults.length > 0) throw invalidConfig(faults);
}

/** 400 for members of the configuration. */
export function invalidConfig(faults: readonly FieldError[]): AppError {
  const errors = faults.map(({ path, message }) => ({
    path: ['connection_config', ...(path === '' ? [] : [path])].join('.'),
    message,
  }));
  return new AppError('validation_failed', 'The connection_config is not valid; see errors.', { errors });
}

function containsMask(value: unknown): boolean {
  if (typeof value === 'string') return value === STORED_SECRET_MASK;
  return typeof value === 'object' && value !== null && Object.values(value).some(containsMask);
}

/** Messages name members and rules, never the value. */
function toConfigErrors(error: z.ZodError): FieldError[] {
  return error.issues.map(({ path, message }) => ({ path: path.join('.'), message }));
}
