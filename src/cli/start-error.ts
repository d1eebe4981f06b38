/** A start that cannot go on, in words for the person at the terminal: printed as it is, without a stack. */
export class StartError extends Error {
  override readonly name = 'StartError';
}
