import type { Owner } from '../owner.ts';

/** A sealed text where it lies in the database, as the commands about the key ring see it. */
export interface EncryptedText {
  owner: Owner;
  /** Which of the owner's, for reports: e.g. `server <id>, password`. */
  name: string;
  token: string;
  /** Whether it opens, and was sealed for where it lies. */
  isValid(): Promise<boolean>;
  /**
   * Puts another token in its place, and changes nothing else.
   * @returns false when it had been changed or deleted meanwhile: then nothing is written.
   */
  replace(token: string): Promise<boolean>;
}

/** All sealed texts of one kind, whoever's they are. */
export interface EncryptedTexts {
  /** In the plural, e.g. `secrets of servers`. */
  kind: string;
  /** Reads them a few at a time, holding nothing meanwhile. What is written in the course of it may be missed. */
  list(): AsyncIterable<EncryptedText>;
}
