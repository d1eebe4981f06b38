import { MAX_PRIVATE_KEY_LENGTH } from '../crypto/private-key-limits.ts';

const BEGIN = /-----BEGIN (?:[A-Z0-9]+ )?PRIVATE KEY-----/g;
const BLOCK = /-----BEGIN ((?:[A-Z0-9]+ )?PRIVATE KEY)-----([\s\S]*?)-----END \1-----/;
/** Of "-----BEGIN ". */
const BASE64_OF_BEGIN = /^LS0tLS1CRUdJTi[A-Za-z0-9+/\s]+={0,2}$/;
/** OpenSSL's header of a key with a passphrase in PKCS#1 or SEC 1. White space shows where its last value ends. */
const ENCRYPTION = /^[ ,]*Proc-Type: ?4,ENCRYPTED[ ,]+DEK-Info: ?([A-Z0-9-]+),([0-9A-Fa-f]+)[ ,]+/;
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;
/** As OpenSSH and OpenSSL write them, so that their files stay as they are. */
const OPENSSH_LINES = /.{1,70}/g;
const PEM_LINES = /.{1,64}/g;
/** Escapes of JSON and shells, as far as they can occur in a key. */
const ESCAPE = /\\{1,4}([nrt/])/g;
/** Indentation, quotation marks and continuations of lines. Base64 contains none of them. */
const BETWEEN_LINES = /[\s"'`\\>]+/g;

/**
 * Restores the lines of a private key that was copied from JSON, YAML, a mail or a setting: escaped line ends (`\n`),
 * blanks or nothing in place of line ends, indentation, quotation marks, text around the key, base64 of the whole file.
 * @returns the key in PEM; the text unchanged when it does not contain exactly one key, or other characters in it.
 */
export function repairPrivateKey(text: string): string {
  const trimmed = text.trim();
  const pem = BASE64_OF_BEGIN.test(trimmed) ? Buffer.from(trimmed, 'base64').toString('latin1') : trimmed;
  const unescaped = pem.replace(ESCAPE, (_escape, letter: string) => (letter === '/' ? '/' : '\n'));
  if (unescaped.match(BEGIN)?.length !== 1) return text;
  const [, label, body = ''] = BLOCK.exec(unescaped) ?? [];
  if (label === undefined) return text;
  const content = body.replace(BETWEEN_LINES, ' ');
  const [header = '', cipher = '', vector = ''] = ENCRYPTION.exec(content) ?? [];
  const base64 = content.slice(header.length).replace(/[ ,]+/g, '');
  if (!BASE64.test(base64)) return text;
  const repaired = [
    `-----BEGIN ${label}-----`,
    ...(header === '' ? [] : ['Proc-Type: 4,ENCRYPTED', `DEK-Info: ${cipher},${vector}`, '']),
    ...(base64.match(label.startsWith('OPENSSH') ? OPENSSH_LINES : PEM_LINES) ?? []),
    `-----END ${label}-----`,
    '',
  ].join('\n');
  return repaired.length > MAX_PRIVATE_KEY_LENGTH ? text : repaired;
}

/** Whether a private key that cannot be repaired is on one line, e.g. because only its first line was kept. */
export function hasLostLineBreaks(text: string): boolean {
  const trimmed = text.trim();
  return /-BEGIN ?[A-Z0-9 ]*PRIVATE ?KEY-/.test(trimmed) && !trimmed.includes('\n');
}
