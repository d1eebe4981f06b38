/** Replaces secrets in text from upstreams before it is shown. */
export type Redactor = (text: string) => string;

const REPLACEMENT = '***';
/** Shorter values are not secrets, and replacing them would damage unrelated text. */
const MIN_SECRET_LENGTH = 6;
/** An escape inside an escape: an error that quotes another server's JSON, which quotes a URL. */
const MAX_DECODINGS = 2;
/** Longer text with escapes is replaced as a whole, since decoding it would occupy the process for too long. */
const MAX_DECODED_LENGTH = 16 * 1024;
const ESCAPE = /[\\%&]/;

/**
 * Redacts whole secrets in raw, JSON, base64, base64url and percent-encoded form. Only for errors, for headers and for
 * the lines of an event stream that hold no data: redacting a success would reveal to a caller which of several
 * guesses is the secret.
 * A secret whose characters are escaped (`\u002b`, `\/`, `%2d`, `&#45;`) is found in the decoded text. The result is
 * then the decoded text, without the secret.
 */
export function createRedactor(secrets: readonly string[]): Redactor {
  const forms = new Set(
    secrets.filter((secret) => secret.length >= MIN_SECRET_LENGTH).flatMap(listEncodedForms),
  );
  // Longest first, so that a form is not broken by a shorter form that it contains.
  const longestFirst = [...forms].sort((a, b) => b.length - a.length);
  const redactForms = (text: string) =>
    longestFirst.reduce((redacted, form) => redacted.replaceAll(form, REPLACEMENT), text);
  const hasSecret = (text: string) => longestFirst.some((form) => text.includes(form));

  return (text) => {
    const redacted = redactForms(text);
    if (!ESCAPE.test(redacted)) return redacted;
    if (redacted.length > MAX_DECODED_LENGTH) return REPLACEMENT;
    const decoded = listDecodings(redacted).find(hasSecret);
    if (decoded === undefined) return redacted;
    const result = redactForms(decoded);
    return listDecodings(result).some(hasSecret) ? REPLACEMENT : result;
  };
}

/**
 * Redacts all strings and member names of a parsed JSON value. Redacting the text of the JSON instead would miss
 * secrets whose characters are escaped.
 * @param value result of `parseJson`, which bounds its depth.
 */
export function redactJson(value: unknown, redact: Redactor): unknown {
  if (typeof value === 'string') return redact(value);
  if (typeof value === 'number') {
    const text = String(value);
    const redacted = redact(text);
    return redacted === text ? value : redacted;
  }
  if (Array.isArray(value)) return value.map((item) => redactJson(item, redact));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [redact(name), redactJson(item, redact)]),
  );
}

function listEncodedForms(secret: string): string[] {
  return [
    secret,
    JSON.stringify(secret).slice(1, -1),
    encodeURIComponent(secret),
    ...listBase64Forms(Buffer.from(secret)),
  ];
}

/**
 * The secret alone, and within a longer text such as `Bearer <secret>`: 3 bytes become 4 characters, so there are three
 * positions. Only characters that the secret alone determines are compared.
 */
function listBase64Forms(secret: Buffer): string[] {
  const alone = [secret.toString('base64').replace(/=+$/, ''), secret.toString('base64url')];
  const within = [0, 1, 2].flatMap((offset) => {
    const padded = Buffer.concat([Buffer.alloc(offset), secret]);
    const [start, end] = [Math.ceil((offset * 8) / 6), Math.floor((padded.length * 8) / 6)];
    return [padded.toString('base64').slice(start, end), padded.toString('base64url').slice(start, end)];
  });
  return [...alone, ...within];
}

type Decode = (text: string) => string;

/** Escapes of JSON, URLs and HTML. */
const DECODERS: readonly Decode[] = [
  (text) =>
    text.replace(
      /\\(?:u([0-9a-f]{4})|x([0-9a-f]{2})|(.))/gis,
      (_escape, unicode?: string, byte?: string, other?: string) =>
        other === undefined ? fromHex(unicode ?? byte) : (WHITE_SPACE[other] ?? other),
    ),
  (text) => text.replace(/%([0-9a-f]{2})/gi, (_escape, hex: string) => fromHex(hex)),
  (text) =>
    text.replace(
      /&(?:#x0*([0-9a-f]{1,4})|#0*([0-9]{1,5})|(amp|lt|gt|quot|apos));/gi,
      (_escape, hex?: string, decimal?: string, name?: string) => {
        if (name !== undefined) return ENTITIES[name.toLowerCase()] ?? '';
        return decimal === undefined ? fromHex(hex) : String.fromCharCode(Number(decimal));
      },
    ),
];

const WHITE_SPACE: Readonly<Record<string, string>> = { n: '\n', r: '\n', t: '\t' };
const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function fromHex(hex = ''): string {
  return String.fromCharCode(Number.parseInt(hex, 16));
}

/** The texts that one to {@link MAX_DECODINGS} decodings produce, in any order of the decoders. */
function listDecodings(text: string): string[] {
  const found = new Set<string>();
  let latest = [text];
  for (let count = 0; count < MAX_DECODINGS; count += 1) {
    latest = latest.flatMap((each) => DECODERS.map((decode) => decode(each)).filter((next) => next !== each));
    for (const each of latest) found.add(each);
  }
  return [...found];
}
