import { z } from 'zod';

/** A hit names a secret by its kind and never prints it. */
const SECRET_KINDS = [
  'provider key',
  'system default key',
  'encryption key',
  'session secret',
  'session cookie',
  'session id',
  'client secret',
  'access token',
  'refresh token',
  'ID token',
  'authorization code',
  'credential of a request',
  'password',
  'private key',
  'canary',
] as const;
export type SecretKind = (typeof SECRET_KINDS)[number];

export const Secret = z.object({ kind: z.enum(SECRET_KINDS), value: z.string() });
export type Secret = z.output<typeof Secret>;

/** Prefixes of the names of evidence files. */
export const SECRETS = 'secrets';
export const LOGS = 'logs';
export const RESPONSES = 'responses';
/** Names of the databases that the run created. */
export const DATABASES = 'databases';

export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}
