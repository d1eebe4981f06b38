/**
 * Worker thread that decrypts one private key, which can take seconds of processor time. Posts the key as PEM, or
 * null when the passphrase is wrong.
 */
import { createPrivateKey } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import ssh2 from 'ssh2';

const { key, passphrase } = workerData as { key: string; passphrase: string };

function decrypt(): string | null {
  try {
    if (key.includes('-----BEGIN ENCRYPTED PRIVATE KEY-----'))
      return createPrivateKey({ key, passphrase }).export({ type: 'pkcs8', format: 'pem' }).toString();
    const parsed = ssh2.utils.parseKey(key, passphrase);
    return parsed instanceof Error ? null : parsed.getPrivatePEM();
  } catch {
    return null;
  }
}

parentPort?.postMessage(decrypt());
