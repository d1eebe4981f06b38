import type { Database } from '../../lib/postgres/database.ts';
import type { Keyring } from '../../lib/crypto/keyring.ts';
import type { EncryptedTexts, EncryptedText } from '../../lib/crypto/encrypted-texts.ts';

/** Encrypted texts of one kind, in numbers. */
export interface OtherSecretCounts {
  kind: string;
  texts: number;
  /** How many each key of the ring decrypts, in the order of ENCRYPTION_KEY. */
  byRingKey: number[];
  /** No key of the ring decrypts them, or they were altered. */
  undecryptable: number;
  /** They decrypt, but were encrypted for another owner, row or member. */
  misplaced: number;
}

export interface OtherSecretsDeps {
  database: Database;
  keyring: Keyring;
  /** Encrypted texts outside the vault. */
  otherSecrets: readonly EncryptedTexts[];
}

/** Counts the encrypted texts outside the vault. Changes nothing. */
export async function countOtherSecrets({
  keyring,
  otherSecrets,
}: OtherSecretsDeps): Promise<OtherSecretCounts[]> {
  const allCounts: OtherSecretCounts[] = [];
  for (const secrets of otherSecrets) {
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
  const ringIndex = keyring.findKeyIndex(text.ciphertext);
  counts.texts += 1;
  if (ringIndex === undefined) counts.undecryptable += 1;
  else {
    counts.byRingKey[ringIndex] = (counts.byRingKey[ringIndex] ?? 0) + 1;
    if (!(await text.isValid())) counts.misplaced += 1;
  }
}

/**
 * Re-encrypts texts under an older key, one by one. A text that changed since it was read is skipped: its writer has
 * encrypted it. Misplaced texts are re-encrypted too and stay misplaced.
 * @param onSeen is called for each text, with the number of re-encrypted texts so far.
 * @returns the number of re-encrypted texts.
 */
export async function reencryptOtherSecrets(
  { database, keyring, otherSecrets }: OtherSecretsDeps,
  onSeen: (reencrypted: number) => void,
): Promise<number> {
  let reencrypted = 0;
  for (const secrets of otherSecrets) {
    for await (const text of secrets.list()) {
      const isUnderOlderKey = (keyring.findKeyIndex(text.ciphertext) ?? 0) > 0;
      const token = isUnderOlderKey ? keyring.reencrypt(text.ciphertext) : undefined;
      if (token !== undefined && (await database.withOwner(text.owner, (sql) => text.replace(sql, token))))
        reencrypted += 1;
      onSeen(reencrypted);
    }
  }
  return reencrypted;
}

/** How many texts need an older key. */
export function countUnderOlderKeys(allCounts: readonly OtherSecretCounts[]): number {
  return allCounts.flatMap(({ byRingKey }) => byRingKey.slice(1)).reduce((sum, each) => sum + each, 0);
}
