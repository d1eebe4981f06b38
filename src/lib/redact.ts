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

/** Characters of a cut secret that are enough to recognize it. Other text does not begin so. */
const CUT_LENGTH = 12;
/** The same where a sign of hidden characters follows, as in `sk-proj-****1234`. */
const HIDDEN_LENGTH = 8;
const HIDDEN_PART = '[\\w-]{0,40}(?:[*•…]|\\.{2})';
/** The other characters of a cut secret, the sign of the cut, and what is shown after it. */
const REST = '[\\w.+/=~%*•…-]*';

/** Public prefixes such as `sk-`, `sk-or-v1-`, `sk-ant-api03-` and `tgp_v1_` have up to three parts. */
const PREFIX_PART = /^[a-z][a-z0-9]{0,7}[-_]/;
const MAX_PREFIX_PARTS = 3;

/**
 * Redacts secrets in raw, JSON, base64, base64url, hexadecimal and percent-encoded form, whole or cut. Only for errors,
 * for headers and for the lines of an event stream that hold no data: redacting a success would reveal to a caller which
 * of several guesses is the secret.
 * A secret whose characters are escaped (`\u002b`, `\/`, `%2d`, `&#45;`) is found in the decoded text. The result is
 * then the decoded text, without the secret.
 * A cut secret is recognized by a fixed number of its first characters, whatever follows. If more characters counted, a
 * caller whose text an error repeats could guess the secret character by character.
 * Servers that remove the public prefix of a key repeat the rest. It is redacted too, without each part of the prefix.
 * @param values secrets. Values of fewer than {@link MIN_SECRET_LENGTH} characters are none.
 */
export function createRedactor(values: readonly string[]): Redactor {
  // Most successes have no text to search, and listing the forms of a secret costs more than the search.
  let redactor: Redactor | undefined;
  return (text) => (redactor ??= createSearch(values))(text);
}

function createSearch(values: readonly string[]): Redactor {
  const secrets = values.filter((value) => value.length >= MIN_SECRET_LENGTH);
  const rests = secrets.map(listWithoutPrefix);
  const whole = [...secrets, ...rests.flat()];
  // Not after some parts of the prefix only: each such rest would let a caller guess a few more characters.
  const cut = [...secrets, ...rests.flatMap((each) => each.slice(-1))];
  const starts = listStarts(whole);
  let pattern: RegExp | undefined;
  // Creating it takes many times as long as this search, and most texts contain no secret.
  const mayHaveSecret = (text: string) => starts.some((start) => text.includes(start));
  const redactSecrets = (text: string) =>
    mayHaveSecret(text) ? text.replace((pattern ??= createPattern(whole, cut)), REPLACEMENT) : text;
  const hasSecret = (text: string) => redactSecrets(text) !== text;

  return (text) => {
    const redacted = redactSecrets(text);
    if (!ESCAPE.test(redacted)) return redacted;
    if (redacted.length > MAX_DECODED_LENGTH) return REPLACEMENT;
    const decoded = listDecodings(redacted).find(hasSecret);
    if (decoded === undefined) return redacted;
    const result = redactSecrets(decoded);
    return listDecodings(result).some(hasSecret) ? REPLACEMENT : result;
  };
}

/** The rest of a secret after the first part of its prefix, after the second, and so on. */
function listWithoutPrefix(secret: string): string[] {
  const rests: string[] = [];
  let rest = secret;
  while (rests.length < MAX_PREFIX_PARTS) {
    const [part] = PREFIX_PART.exec(rest) ?? [];
    if (part === undefined || rest.length - part.length < CUT_LENGTH) break;
    rest = rest.slice(part.length);
    rests.push(rest);
  }
  return rests;
}

/** With what the forms of the secrets begin, whole or cut. Text without any of these contains no secret. */
function listStarts(secrets: readonly string[]): string[] {
  const forms = secrets.map((secret) => secret.slice(0, CUT_LENGTH)).flatMap(listEncodedForms);
  return [...new Set(forms.map((form) => form.slice(0, MIN_SECRET_LENGTH)))];
}

/**
 * A pattern of all forms. Each begins with literal text, and only the short {@link HIDDEN_PART} backtracks, so that a
 * search takes time linear in the length of the text.
 * @param whole what is found whole.
 * @param cut what is found cut as well.
 */
function createPattern(whole: readonly string[], cut: readonly string[]): RegExp {
  // Longest first, so that a form is not broken by a shorter form that it contains.
  const forms = [...new Set(whole.flatMap(listEncodedForms))].sort((a, b) => b.length - a.length);
  const long = cut.filter((secret) => secret.length > CUT_LENGTH);
  const alternatives = [
    ...forms.map(escapePattern),
    ...long.flatMap(listCutForms).map((form) => escapePattern(form) + REST),
    ...long.map((secret) => escapePattern(secret.slice(0, HIDDEN_LENGTH)) + HIDDEN_PART + REST),
  ];
  return new RegExp(alternatives.join('|'), 'g');
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
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
    encodeURIComponent(secret.toWellFormed()),
    ...listBase64Forms(Buffer.from(secret)),
    ...listHexForms(Buffer.from(secret)),
  ];
}

/** The first characters of a secret, also in base64 of a longer text such as `Bearer <secret>`. */
function listCutForms(secret: string): string[] {
  const start = secret.slice(0, CUT_LENGTH);
  const bytes = Buffer.from(secret).subarray(0, CUT_LENGTH);
  const encoded = encodeURIComponent(start.toWellFormed());
  return [...new Set([start, encoded, ...listBase64Forms(bytes), ...listHexForms(bytes)])];
}

/** In both letter cases, and with the separators of a dump. */
function listHexForms(bytes: Buffer): string[] {
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'));
  return ['', ' ', ':'].flatMap((separator) => {
    const text = digits.join(separator);
    return [text, text.toUpperCase()];
  });
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
