/** Replaces secrets in text from upstreams before it is shown. */
export type Redactor = (text: string) => string;

const REPLACEMENT = '***';
/** Shorter values are not secrets, and replacing them would damage unrelated text. */
const MIN_SECRET_LENGTH = 6;

/**
 * Redacts whole secrets in raw, JSON, base64, base64url and percent-encoded form. Only for error bodies, error frames
 * and headers: redacting a success body would reveal to a caller which of several guesses is the secret.
 */
export function createRedactor(secrets: readonly string[]): Redactor {
  const forms = new Set(
    secrets.filter((secret) => secret.length >= MIN_SECRET_LENGTH).flatMap(listEncodedForms),
  );
  // Longest first, so that a form is not broken by a shorter form that it contains.
  const longestFirst = [...forms].sort((a, b) => b.length - a.length);
  return (text) => longestFirst.reduce((redacted, form) => redacted.replaceAll(form, REPLACEMENT), text);
}

function listEncodedForms(secret: string): string[] {
  const bytes = Buffer.from(secret);
  return [
    secret,
    JSON.stringify(secret).slice(1, -1),
    bytes.toString('base64').replace(/=+$/, ''),
    bytes.toString('base64url'),
    encodeURIComponent(secret),
  ];
}
