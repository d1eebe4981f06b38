/** Words of examples and placeholders. Random text of the lengths below contains none of them. */
const PLACEHOLDER_WORDS =
  /change[-_ ]?(me|this|it)|changeit|example|placeholder|password|passphrase|secret|replace|default|^your[-_ ]|insecure|development|ops[-_]?center/i;

/** Keys that are published, e.g. in the Fernet specification and in tutorials, decoded. */
const PUBLISHED_KEYS = new Set(['cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=']);

/** 32 random hexadecimal digits have 14 different ones on average, and fewer than 8 about once in 10^7 times. */
const MIN_DIFFERENT_CHARACTERS = 8;
/** 32 random bytes have 30 different ones on average. */
const MIN_DIFFERENT_BYTES = 16;

/**
 * Says why a secret of the operator can be guessed. It detects what people type instead of random text; it does not
 * measure entropy.
 * @returns a phrase that follows the setting's name and contains no part of the secret; undefined for a secret that
 *   looks random.
 */
export function findTextSecretWeakness(secret: string): string | undefined {
  if (PLACEHOLDER_WORDS.test(secret)) return 'contains a word of an example';
  return findPattern(Array.from(Buffer.from(secret)), MIN_DIFFERENT_CHARACTERS);
}

/** The same for a Fernet key: 32 bytes in base64url. */
export function findFernetKeyWeakness(key: string): string | undefined {
  if (PUBLISHED_KEYS.has(key)) return 'is a published example';
  const bytes = Array.from(Buffer.from(key, 'base64url'));
  if (bytes.every((byte) => byte >= 0x20 && byte < 0x7f)) return 'is text, not random bytes';
  return findPattern(bytes, MIN_DIFFERENT_BYTES);
}

function findPattern(values: readonly number[], minDifferent: number): string | undefined {
  if (new Set(values).size < minDifferent) return 'has too few different characters';
  if (isRepeated(values)) return 'repeats one part';
  if (isSequence(values)) return 'is a sequence';
  return undefined;
}

/** `abcabcab`, also when the last repetition is cut. */
function isRepeated(values: readonly number[]): boolean {
  const periods = Array.from({ length: Math.floor(values.length / 2) }, (_, at) => at + 1);
  return periods.some((period) => values.every((value, at) => at < period || value === values[at - period]));
}

/** Most neighbours have the same distance, as in `abcdef...` and `0123...`. */
function isSequence(values: readonly number[]): boolean {
  const counts = new Map<number, number>();
  for (const [at, value] of values.slice(1).entries()) {
    const distance = value - (values[at] ?? 0);
    counts.set(distance, (counts.get(distance) ?? 0) + 1);
  }
  return Math.max(0, ...counts.values()) > values.length / 2;
}
const MIN_CLIENT_SECRET_LENGTH = 32;

interface DeployedSecrets {
  keycloak: Record<'web' | 'service' | 'vault', { secret: string }>;
  /** Keys after the first only decrypt, so that a weak one can be rotated away. */
  encryptionKeys: readonly string[];
  sessionSecret: string | undefined;
}

/** Messages about secrets that can be guessed. None contains a secret or a part of it. */
export function findSecretErrors({ keycloak, encryptionKeys, sessionSecret }: DeployedSecrets): string[] {
  const [encryptionKey] = encryptionKeys;
  const errors: string[] = [];
  const clients = { WEB: keycloak.web, SERVICE: keycloak.service, VAULT: keycloak.vault };
  const found: [name: string, weakness: string | undefined][] = [
    ['ENCRYPTION_KEY', encryptionKey && findFernetKeyWeakness(encryptionKey)],
    ['SESSION_SECRET', sessionSecret && findTextSecretWeakness(sessionSecret)],
  ];
  for (const [client, { secret }] of Object.entries(clients)) {
    const name = `KEYCLOAK_${client}_CLIENT_SECRET`;
    if (secret.length >= MIN_CLIENT_SECRET_LENGTH) found.push([name, findTextSecretWeakness(secret)]);
    else if (secret !== '')
      errors.push(`${name} must have ${MIN_CLIENT_SECRET_LENGTH} characters or more when DEPLOY_ENV is set`);
  }
  for (const [name, weakness] of found) {
    if (weakness)
      errors.push(`${name} can be guessed: it ${weakness}. Use a random value when DEPLOY_ENV is set`);
  }
  return errors;
}
