/** Replaces secrets in text that came from elsewhere and is about to be shown. */
export type Redactor = (text: string) => string;

const REPLACEMENT = '***';
/** Shorter values are no secrets, and replacing them would tear innocent text apart. */
const MIN_SECRET_LENGTH = 6;

/**
 * Builds a scrubber for whole secrets in raw, JSON, base64, base64url and percent form.
 * Only for error bodies, error frames and headers: rewriting a success body would tell a caller
 * which of the strings that they guess is the secret.
 */
export function createRedactor(secrets: readonly string[]): Redactor {
  const forms = new Set(
    secrets.filter((secret) => secret.length >= MIN_SECRET_LENGTH).flatMap(listEncodedForms),
  );
  // The longest first, so that no form is cut short by one that it contains.
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
