/** A private key that cannot be used; the message is for people and holds nothing of the key. */
export class PrivateKeyError extends Error {
  override readonly name = 'KeyError';
}
