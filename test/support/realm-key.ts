import { generateKeyPairSync } from 'node:crypto';
import { evidence } from './evidence.ts';

/**
 * The member of a realm representation that brings the realm's signing key. Without it Keycloak generates two RSA keys,
 * which takes seconds of a processor.
 */
export function realmKey(): { privateKey: string } {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const text = privateKey.export({ type: 'pkcs8', format: 'der' }).toString('base64');
  evidence.registerSecret('private key', text);
  return { privateKey: text };
}
