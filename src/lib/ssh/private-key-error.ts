/** A private key that cannot be used. The message is for users and contains no part of the key. */
export class PrivateKeyError extends Error {
  override readonly name = 'PrivateKeyError';
}
