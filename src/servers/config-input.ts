import type { z } from 'zod';
import { AppError, type FieldError } from '../lib/errors.ts';
import { describeIssue } from '../lib/validation-messages.ts';
import type { Runner } from '../runners/runner.ts';
import { STORED_SECRET_MASK } from './schema.ts';

/** A `connection_config` as it was sent. */
export type ConfigInput = Readonly<Record<string, unknown>>;

/** As JSON. A kubeconfig with its certificates has about 10 KB; a list of servers contains up to 20 configurations. */
const MAX_CONFIG_CHARACTERS = 128 * 1024;

/**
 * Parses a configuration with its runner's schema. A null counts as a missing member.
 * @param stored members that were not sent keep these values.
 * @returns the configuration, or its errors with paths inside the configuration.
 */
export async function parseConfig(
  runner: Runner,
  input: ConfigInput,
  stored: ConfigInput = {},
): Promise<{ config: unknown } | { errors: FieldError[] }> {
  const { sent, problems: contradictions } = runner.correctInput?.(input) ?? { sent: input, problems: {} };
  if (Object.keys(contradictions).length > 0) return { errors: toProblemErrors(contradictions) };
  const merged = { ...stored, ...sent };
  const present = Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null));
  const parsed = await runner.config.safeParseAsync(present, { error: describeIssue });
  if (!parsed.success) return { errors: toConfigErrors(parsed.error) };
  const problems = runner.findInputProblems?.(parsed.data) ?? {};
  if (Object.keys(problems).length > 0) return { errors: toProblemErrors(problems) };
  const isTooLong = JSON.stringify(parsed.data).length > MAX_CONFIG_CHARACTERS;
  const message = `must have ${MAX_CONFIG_CHARACTERS} characters or fewer as JSON`;
  return isTooLong ? { errors: [{ path: '', message }] } : { config: parsed.data };
}

/** @throws AppError `validation_failed` (400) with the invalid members. */
export async function getValidConfig(runner: Runner, input: ConfigInput): Promise<unknown> {
  const parsed = await parseConfig(runner, input);
  if ('errors' in parsed) throw invalidConfig(parsed.errors);
  return parsed.config;
}

/**
 * Refuses the mask of stored secrets, which would otherwise be stored instead of the secret.
 * @param kept members with a stored secret: their whole value may be the mask.
 * @throws AppError `validation_failed` (400) with the invalid members.
 */
export function assertNoMasks(input: ConfigInput, kept: readonly string[] = []): void {
  const errors = Object.entries(input)
    .filter(
      ([member, value]) => containsMask(value) && !(value === STORED_SECRET_MASK && kept.includes(member)),
    )
    .map(([path]) => ({ path, message: 'is the mask of a stored secret; send the secret itself' }));
  if (errors.length > 0) throw invalidConfig(errors);
}

/** 400. @param configErrors with paths inside the configuration. */
export function invalidConfig(configErrors: readonly FieldError[]): AppError {
  const errors = configErrors.map(({ path, message }) => ({
    path: ['connection_config', ...(path === '' ? [] : [path])].join('.'),
    message,
  }));
  return new AppError('validation_failed', 'The connection_config is not valid; see errors.', { errors });
}

function containsMask(value: unknown): boolean {
  if (typeof value === 'string') return value === STORED_SECRET_MASK;
  return typeof value === 'object' && value !== null && Object.values(value).some(containsMask);
}

function toProblemErrors(problems: Readonly<Record<string, string>>): FieldError[] {
  return Object.entries(problems).map(([path, message]) => ({ path, message }));
}

/** The messages contain members and rules, never a value. */
function toConfigErrors(error: z.ZodError): FieldError[] {
  return error.issues.map(({ path, message }) => ({ path: path.join('.'), message }));
}
