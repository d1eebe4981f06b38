import { describe, expect, it } from '@jest/globals';
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { repairPrivateKey } from '../../../src/lib/ssh/private-key-repair.ts';
import {
  findPrivateKeyInputProblem,
  findPrivateKeyProblem,
  generateSshKeyPair,
  parsePrivateKey,
} from '../../../src/lib/ssh/private-key.ts';
import { registerPrivateKey } from '../../support/hosts.ts';
import { createLockedKey } from '../../support/locked-key.ts';
import { neverAborted } from './servers.ts';

const PASSPHRASE = 'a passphrase of this test';
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const ec = generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey;
const encrypted = { cipher: 'aes-128-cbc', passphrase: PASSPHRASE };
const pem = { format: 'pem' } as const;

/** Keys as their programs write them. */
const KEYS: Record<string, string> = {
  openssh: generateSshKeyPair().privateKey,
  'openssh with a passphrase': createLockedKey(1, PASSPHRASE),
  'pkcs#1': rsa.export({ ...pem, type: 'pkcs1' }).toString(),
  'pkcs#1 with a passphrase': rsa.export({ ...pem, type: 'pkcs1', ...encrypted }).toString(),
  'sec 1': ec.export({ ...pem, type: 'sec1' }).toString(),
  'pkcs#8': rsa.export({ ...pem, type: 'pkcs8' }).toString(),
  'pkcs#8 with a passphrase': rsa.export({ ...pem, type: 'pkcs8', ...encrypted }).toString(),
};
for (const key of Object.values(KEYS)) registerPrivateKey(key);

const lines = (key: string) => key.trimEnd().split('\n');
const DAMAGES: Record<string, (key: string) => string> = {
  nothing: (key) => key,
  'escaped line ends': (key) => key.replaceAll('\n', '\\n'),
  'doubly escaped line ends': (key) => key.replaceAll('\n', '\\\\n'),
  'escaped line ends of Windows': (key) => key.replaceAll('\n', '\\r\\n'),
  'escaped line ends at the ends of lines': (key) => key.replaceAll('\n', '\\n\n'),
  'blanks for line ends': (key) => key.replaceAll('\n', ' '),
  'tabs for line ends': (key) => key.replaceAll('\n', '\t'),
  'JSON of the text': (key) => JSON.stringify(key),
  'JSON with escaped slashes': (key) => JSON.stringify(key).replaceAll('/', '\\/'),
  'JSON of a list of lines': (key) => JSON.stringify(lines(key), null, 2),
  'single quotes': (key) => `'${key.trimEnd()}'`,
  'a setting with quotes': (key) => `SSH_KEY="${key.replaceAll('\n', '\\n')}"`,
  'YAML with indentation': (key) =>
    `key: |\n${lines(key)
      .map((line) => `    ${line}`)
      .join('\n')}\n`,
  'a quotation in a mail': (key) =>
    lines(key)
      .map((line) => `> ${line}`)
      .join('\n'),
  'continued lines of a shell': (key) => lines(key).join('\\\n'),
  'line ends of Windows': (key) => key.replaceAll('\n', '\r\n'),
  'empty lines between all': (key) => lines(key).join('\n\n'),
  'a byte order mark': (key) => `\ufeff${key}`,
  'text around it': (key) => `Here is the key:\n${key}\nBye`,
  'base64 of the file': (key) => Buffer.from(key).toString('base64'),
  'base64 of the file in lines': (key) =>
    (
      Buffer.from(key)
        .toString('base64')
        .match(/.{1,76}/g) ?? []
    ).join('\n'),
};
const withoutLineEnds = (key: string) => key.replaceAll('\n', '');
const isPkcs1WithPassphrase = (key: string) => key.includes('Proc-Type');

/** The public half in PEM, which proves that the whole key was read. */
async function readPublicHalf(key: string): Promise<string> {
  const parsed = await parsePrivateKey(key, PASSPHRASE, { owner: 'user:test', signal: neverAborted() });
  return createPublicKey(parsed.getPublicPEM()).export({ type: 'spki', format: 'pem' }).toString();
}

describe.each(Object.entries(KEYS))('a private key of the format %s', (_format, key) => {
  it.each(Object.entries(DAMAGES))('is restored from %s', (_name, damage) => {
    const repaired = repairPrivateKey(damage(key));
    expect(repaired).toBe(key);
    expect(findPrivateKeyProblem(repaired, PASSPHRASE)).toBeUndefined();
    expect(findPrivateKeyInputProblem(repaired)).toBeUndefined();
  });

  it('is restored from a text without line ends, or these are said to be lost', async () => {
    const repaired = repairPrivateKey(withoutLineEnds(key));
    if (isPkcs1WithPassphrase(key))
      expect(findPrivateKeyProblem(repaired, PASSPHRASE)).toMatch(/line breaks of the key are lost/);
    else expect(await readPublicHalf(repaired)).toBe(await readPublicHalf(key));
  });

  it('is not restored when it is one of two', () => {
    const both = `${key}\n${generateSshKeyPair().privateKey}`.replaceAll('\n', '\\n');
    expect(repairPrivateKey(both)).toBe(both);
    expect(findPrivateKeyProblem(both, PASSPHRASE)).toBeDefined();
  });

  it.each<[string, (key: string) => string, RegExp]>([
    ['its first line alone', (text) => lines(text)[0] ?? '', /line breaks of the key are lost/],
    ['marks without blanks', (text) => text.replace(/\s/g, ''), /line breaks of the key are lost/],
    ['no last line', (text) => lines(text).slice(0, -1).join('\n'), /cannot be read/],
    [
      'no last line, on one line',
      (text) => lines(text).slice(0, -1).join(' '),
      /line breaks of the key are lost/,
    ],
    ['other characters', (text) => text.replace(/\n(.)/, '\n!$1'), /cannot be read|is not supported/],
  ])('is refused with %s, and is not quoted', (_name, damage, message) => {
    const repaired = repairPrivateKey(damage(key));
    const problem = findPrivateKeyProblem(repaired, PASSPHRASE) ?? findPrivateKeyInputProblem(repaired);
    expect(problem).toMatch(message);
    expect(problem).not.toContain(lines(key)[1]?.slice(0, 10));
  });
});

it.each(['openssh', 'openssh with a passphrase', 'pkcs#1', 'sec 1', 'pkcs#8', 'pkcs#8 with a passphrase'])(
  'a private key of the format %s is not stored when lines are missing',
  (format) => {
    const key = KEYS[format] ?? '';
    for (const start of [2, lines(key).length - 3]) {
      const cut = repairPrivateKey(lines(key).toSpliced(start, 2).join('\n'));
      expect(findPrivateKeyProblem(cut, PASSPHRASE) ?? findPrivateKeyInputProblem(cut)).toEqual(
        expect.any(String),
      );
    }
  },
);

it('a text of the maximum length is checked quickly, whatever it repeats', () => {
  for (const part of [
    '-----BEGIN A PRIVATE KEY-----',
    '-----BEGIN ',
    '\\n',
    '\\',
    ' ',
    'Proc-Type: 4,ENCRYPTED ',
  ])
    for (const start of ['', '-----BEGIN RSA PRIVATE KEY-----']) {
      const text = start + part.repeat(32_768 / part.length);
      const startedMs = performance.now();
      expect(repairPrivateKey(text)).toBe(text);
      expect(performance.now() - startedMs).toBeLessThan(500);
    }
});
