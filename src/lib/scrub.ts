/** Replaces secrets in text that came from elsewhere and is about to be shown. */
export type Scrub = (text: string) => string;

const REPLACEMENT = '***';
/** Shorter values are no secrets, and replacing them would tear innocent text apart. */
const SHORTEST_SECRET = 6;

/**
 * Builds a scrubber for whole secrets in raw, JSON, base64, base64url and percent form.
 * Only for error bodies, error frames and headers: rewriting a success body would tell a caller
 * which of the strings that they guess is the secret.
 */
export function createScrub(secrets: readonly string[]): Scrub {
  const forms = new Set(secrets.filter((secret) => secret.length >= SHORTEST_SECRET).flatMap(formsOf));
  // The longest first, so that no form is cut short by one that it contains.
  const inOrder = [...forms].sort((a, b) => b.length - a.length);
  return (text) => inOrder.reduce((cleaned, form) => cleaned.replaceAll(form, REPLACEMENT), text);
}

function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  return [
    secret,
    JSON.stringify(secret).slice(1, -1),
    bytes.toString('base64').replace(/=+$/, ''),
    bytes.toString('base64url'),
    encodeURIComponent(secret),
  ];
}
