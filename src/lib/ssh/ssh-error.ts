import type { SshHostKey } from './host-key.ts';

/** What a failed connection means to the one whose server it is. */
export type SshFailure =
  | 'forbidden'
  | 'offline'
  | 'host_key_unknown'
  | 'host_key_changed'
  | 'auth_failed'
  /** It answers, but not so that anything can be run there. */
  | 'error';

/** How far it came; in this order for each hop. */
export type SshStage = 'policy' | 'tcp' | 'host_key' | 'authentication' | 'permission';

export interface SshErrorOptions {
  failure: SshFailure;
  stage: SshStage;
  /** Written for people: what was found and what to do. Never a secret, never what a server sent. */
  message: string;
  /** The id of the jump server that failed; null when it was the server itself. */
  hop?: string | null;
  /** The key that was shown, where it is unknown or has changed. */
  hostKey?: SshHostKey | null;
  cause?: unknown;
}

/** An SSH connection that could not be made or used. */
export class SshError extends Error {
  override readonly name = 'SshError';
  readonly failure: SshFailure;
  readonly stage: SshStage;
  readonly hop: string | null;
  readonly hostKey: SshHostKey | null;

  constructor(options: SshErrorOptions) {
    super(options.message, options.cause === undefined ? undefined : { cause: options.cause });
    this.failure = options.failure;
    this.stage = options.stage;
    this.hop = options.hop ?? null;
    this.hostKey = options.hostKey ?? null;
  }
}
