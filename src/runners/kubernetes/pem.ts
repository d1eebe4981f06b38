import { createPrivateKey, X509Certificate } from 'node:crypto';
import { findPrivateKeyError } from '../../lib/crypto/private-key-limits.ts';

const CERTIFICATE_BLOCK = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

/** True for PEM text with at least one certificate, all of which can be read. */
export function areCertificates(pem: string): boolean {
  const blocks = pem.match(CERTIFICATE_BLOCK) ?? [];
  return blocks.length > 0 && blocks.every(isCertificate);
}

function isCertificate(pem: string): boolean {
  try {
    new X509Certificate(pem);
    return true;
  } catch {
    return false;
  }
}

/**
 * Looks at a PEM certificate and the private key that belongs to it; a key with a passphrase is refused.
 * @returns what is wrong, for people; undefined when they belong together, and the key's use is cheap.
 */
export function findKeyPairIssue(cert: string, key: string): string | undefined {
  // Before OpenSSL reads it.
  const limitIssue = findPrivateKeyError(key);
  if (limitIssue !== undefined) return `client-key-data: ${limitIssue}`;
  try {
    if (new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) return undefined;
  } catch {
    // As for two that do not belong together.
  }
  return 'client-certificate-data and client-key-data are not a certificate and its key.';
}
