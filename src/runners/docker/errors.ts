import { SshError } from '../../lib/ssh/ssh-error.ts';

/** A problem that a user can fix, e.g. an image that cannot be pulled. The message is for users. */
export class DockerError extends Error {
  override readonly name = 'DockerError';
}

/** An error response of the engine. */
export class EngineResponseError extends Error {
  override readonly name = 'EngineResponseError';
  readonly status: number;
  /** Text of the response, used to tell cases apart. Never shown to users. */
  readonly responseText: string;

  constructor(status: number, responseText: string) {
    super(`the engine responded with status ${status}`);
    this.status = status;
    this.responseText = responseText;
  }
}

type KnownError = DockerError | EngineResponseError | SshError;

/** Searches an error and its causes: the error of a connector is the cause of the failed request's error. */
export function findDockerError(error: unknown): KnownError | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof DockerError || cause instanceof EngineResponseError || cause instanceof SshError)
      return cause;
  }
  return undefined;
}
