import { SshError } from '../../lib/ssh/ssh-error.ts';

/** What a user can do something about: an image that could not be fetched, and the like. The message is for people. */
export class DockerFault extends Error {
  override readonly name = 'DockerFault';
}

/** An answer of the engine that says no. */
export class EngineRefusal extends Error {
  override readonly name = 'EngineRefusal';
  readonly status: number;
  /** What the engine said, for telling cases apart; not to be passed on. */
  readonly said: string;

  constructor(status: number, said: string) {
    super(`the engine answered ${status}`);
    this.status = status;
    this.said = said;
  }
}

type Fault = DockerFault | EngineRefusal | SshError;

/** The fault that an error is, or that caused it: what a connector throws comes out of a request as its cause. */
export function findFault(error: unknown): Fault | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof DockerFault || cause instanceof EngineRefusal || cause instanceof SshError)
      return cause;
  }
  return undefined;
}
