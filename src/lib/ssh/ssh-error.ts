import type { HostKey } from './host-key.ts';

/** What a failed connection means to the user. */
export type SshFailure =
  | 'forbidden'
  | 'offline'
  | 'host_key_unknown'
  | 'host_key_changed'
  | 'auth_failed'
  /** This process has no capacity at the moment. The server was not asked. */
  | 'busy'
  /** The server responds, but no command can be run on it. */
  | 'error';

/** The stage at which a connection failed; each hop passes them in this order. */
export type SshStage = 'policy' | 'tcp' | 'host_key' | 'authentication' | 'permission';

export interface SshErrorOptions {
  failure: SshFailure;
  stage: SshStage;
  /** For users: what was found and what to do. Contains no secret and no text from the server. */
  message: string;
  /** The id of the jump server that failed; null for the server itself. */
  hop?: string | null;
  /** The host key that the server showed, if it is unknown or has changed. */
  hostKey?: HostKey | null;
  cause?: unknown;
}

/** An SSH connection could not be opened or used. */
export class SshError extends Error {
  override readonly name = 'SshError';
  readonly failure: SshFailure;
  readonly stage: SshStage;
  readonly hop: string | null;
  readonly hostKey: HostKey | null;

  constructor(options: SshErrorOptions) {
    super(options.message, options.cause === undefined ? undefined : { cause: options.cause });
    this.failure = options.failure;
    this.stage = options.stage;
    this.hop = options.hop ?? null;
    this.hostKey = options.hostKey ?? null;
  }
}

/** A private key that cannot be used. The message is for users and contains no part of the key. */
export class PrivateKeyError extends Error {
  override readonly name = 'PrivateKeyError';
}

/** A private key could not be decrypted in time because others are being decrypted. It may be valid. */
export class PrivateKeyBusyError extends Error {
  override readonly name = 'PrivateKeyBusyError';

  constructor() {
    super('Too many private keys are being decrypted at the moment. Try again.');
  }
}
