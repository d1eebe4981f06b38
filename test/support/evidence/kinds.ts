import { z } from 'zod';

/** How a hit names a secret, which it never prints. */
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

/** What the names of evidence files begin with. */
export const SECRETS = 'secrets';
export const LOGS = 'logs';
export const RESPONSES = 'responses';
/** Names of the databases that the run made. */
export const DATABASES = 'databases';

export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}
