import { SshError } from '../../lib/ssh/ssh-error.ts';

/** What a user can do something about: an image that could not be fetched, and the like. The message is for people. */
export class DockerError extends Error {
  override readonly name = 'DockerFault';
}

/** An answer of the engine that says no. */
export class EngineResponseError extends Error {
  override readonly name = 'EngineRefusal';
  readonly status: number;
  /** What the engine said, for telling cases apart; not to be passed on. */
  readonly responseText: string;

  constructor(status: number, responseText: string) {
    super(`the engine answered ${status}`);
    this.status = status;
    this.responseText = responseText;
  }
}

type KnownError = DockerError | EngineResponseError | SshError;

/** The fault that an error is, or that caused it: what a connector throws comes out of a request as its cause. */
export function findDockerError(error: unknown): KnownError | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof DockerError || cause instanceof EngineResponseError || cause instanceof SshError)
      return cause;
  }
  return undefined;
}
