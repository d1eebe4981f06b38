import { createPrivateKey, X509Certificate } from 'node:crypto';
import { findPrivateKeyError } from '../../lib/crypto/private-key-limits.ts';

const CERTIFICATE_BLOCK = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

/** True for PEM text with at least one certificate, if all of them can be parsed. */
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
 * Checks a PEM certificate and its private key. A key with a passphrase is refused.
 * @returns the problem, for users; undefined if they match and using the key is cheap.
 */
export function findKeyPairIssue(cert: string, key: string): string | undefined {
  // Checked before OpenSSL reads the key.
  const limitIssue = findPrivateKeyError(key);
  if (limitIssue !== undefined) return `client-key-data: ${limitIssue}`;
  try {
    if (new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) return undefined;
  } catch {
    // Treated like a pair that does not match.
  }
  return 'client-certificate-data and client-key-data are not a certificate and its key.';
}
