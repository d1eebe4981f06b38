import type { Keyring } from '../../lib/crypto/keyring.ts';
import type { EncryptedTexts, EncryptedText } from '../../lib/crypto/encrypted-texts.ts';

/** How the sealed texts of one kind stand. */
export interface OtherSecretCounts {
  kind: string;
  texts: number;
  /** How many each key of the ring opens, in the order of ENCRYPTION_KEY. */
  byRingKey: number[];
  /** Opened by no key of the ring, or altered. */
  undecryptable: number;
  /** They open, but were sealed for another place than where they lie. */
  misplaced: number;
}

export interface OtherSecretsDeps {
  keyring: Keyring;
  /** What lies sealed outside the vault. */
  otherSecrets: readonly EncryptedTexts[];
}

/** Counts what lies outside the vault, and changes nothing. */
export async function countOtherSecrets({
  keyring,
  otherSecrets: sealedElsewhere,
}: OtherSecretsDeps): Promise<OtherSecretCounts[]> {
  const allCounts: OtherSecretCounts[] = [];
  for (const secrets of sealedElsewhere) {
    const byRingKey = Array.from({ length: keyring.size }, () => 0);
    const counts: OtherSecretCounts = {
      kind: secrets.kind,
      texts: 0,
      byRingKey,
      undecryptable: 0,
      misplaced: 0,
    };
    for await (const text of secrets.list()) await countSecret(counts, keyring, text);
    allCounts.push(counts);
  }
  return allCounts;
}

async function countSecret(counts: OtherSecretCounts, keyring: Keyring, text: EncryptedText): Promise<void> {
  const ringIndex = keyring.findKeyIndex(text.token);
  counts.texts += 1;
  if (ringIndex === undefined) counts.undecryptable += 1;
  else {
    counts.byRingKey[ringIndex] = (counts.byRingKey[ringIndex] ?? 0) + 1;
    if (!(await text.isValid())) counts.misplaced += 1;
  }
}

/**
 * Seals anew what lies under an older key, text by text, each only where it is still the one that was read: whoever
 * changes it meanwhile has sealed it himself. Misplaced ones stay misplaced, under the first key.
 * @param onSeen is called for each text that was seen, with how many were sealed anew so far.
 * @returns how many were.
 */
export async function reencryptOtherSecrets(
  { keyring, otherSecrets: sealedElsewhere }: OtherSecretsDeps,
  onSeen: (reencrypted: number) => void,
): Promise<number> {
  let reencrypted = 0;
  for (const secrets of sealedElsewhere) {
    for await (const text of secrets.list()) {
      const isUnderOlder = (keyring.findKeyIndex(text.token) ?? 0) > 0;
      const token = isUnderOlder ? keyring.reencrypt(text.token) : undefined;
      if (token !== undefined && (await text.replace(token))) reencrypted += 1;
      onSeen(reencrypted);
    }
  }
  return reencrypted;
}

/** How many of them need an older key. */
export function countUnderOlderKeys(allCounts: readonly OtherSecretCounts[]): number {
  return allCounts.flatMap(({ byRingKey }) => byRingKey.slice(1)).reduce((sum, each) => sum + each, 0);
}
