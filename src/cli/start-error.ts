/** Expected failure of a command. Its message is printed to the terminal without a stack. */
export class StartError extends Error {
  override readonly name = 'StartError';
}
