import type { Keyring } from '../../lib/keyring.ts';
import type { SealedTexts, SealedText } from '../../lib/sealed-texts.ts';

/** How the sealed texts of one kind stand. */
export interface SealedTally {
  kind: string;
  texts: number;
  /** How many each key of the ring opens, in the order of ENCRYPTION_KEY. */
  byRingKey: number[];
  /** Opened by no key of the ring, or altered. */
  undecryptable: number;
  /** They open, but were sealed for another place than where they lie. */
  misplaced: number;
}

export interface Elsewhere {
  keyring: Keyring;
  /** What lies sealed outside the vault. */
  sealedElsewhere: readonly SealedTexts[];
}

/** Counts what lies outside the vault, and changes nothing. */
export async function tallyElsewhere({ keyring, sealedElsewhere }: Elsewhere): Promise<SealedTally[]> {
  const tallies: SealedTally[] = [];
  for (const sealed of sealedElsewhere) {
    const byRingKey = Array.from({ length: keyring.size }, () => 0);
    const tally: SealedTally = { kind: sealed.kind, texts: 0, byRingKey, undecryptable: 0, misplaced: 0 };
    for await (const text of sealed.list()) await count(tally, keyring, text);
    tallies.push(tally);
  }
  return tallies;
}

async function count(tally: SealedTally, keyring: Keyring, text: SealedText): Promise<void> {
  const ringIndex = keyring.ringIndex(text.token);
  tally.texts += 1;
  if (ringIndex === undefined) tally.undecryptable += 1;
  else {
    tally.byRingKey[ringIndex] = (tally.byRingKey[ringIndex] ?? 0) + 1;
    if (!(await text.isInPlace())) tally.misplaced += 1;
  }
}

/**
 * Seals anew what lies under an older key, text by text, each only where it is still the one that was read: whoever
 * changes it meanwhile has sealed it himself. Misplaced ones stay misplaced, under the first key.
 * @param onSeen is called for each text that was seen, with how many were sealed anew so far.
 * @returns how many were.
 */
export async function resealElsewhere(
  { keyring, sealedElsewhere }: Elsewhere,
  onSeen: (resealed: number) => void,
): Promise<number> {
  let resealed = 0;
  for (const sealed of sealedElsewhere) {
    for await (const text of sealed.list()) {
      const isUnderOlder = (keyring.ringIndex(text.token) ?? 0) > 0;
      const token = isUnderOlder ? keyring.reseal(text.token) : undefined;
      if (token !== undefined && (await text.replace(token))) resealed += 1;
      onSeen(resealed);
    }
  }
  return resealed;
}

/** How many of them need an older key. */
export function countUnderOlder(tallies: readonly SealedTally[]): number {
  return tallies.flatMap(({ byRingKey }) => byRingKey.slice(1)).reduce((sum, each) => sum + each, 0);
}
