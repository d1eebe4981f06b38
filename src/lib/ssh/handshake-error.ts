import { createAuthFailureMessage, createAuthTimeoutMessage } from './auth-failure-message.ts';
import type { AuthProgress } from './authentication.ts';
import type { SshHop } from './config.ts';
import type { HostKey } from './host-key.ts';
import { SshError, type SshErrorOptions, type SshStage } from './ssh-error.ts';

/** From the first byte to an authenticated session. A slower server counts as offline. */
export const READY_TIMEOUT_MS = 15_000;

const NO_SSH =
  'The server does not complete a valid SSH handshake on this port. Check the port, and use OpenSSH 6.5 or later.';
const UNKNOWN_HOST_KEY =
  'The server shows a type of host key that is not accepted here. Add a host key of the type ssh-ed25519 on the server.';
const BANNER_TOO_LONG =
  'The server sent a message that is longer than SSH permits, which is probably its banner. Shorten the file that Banner ' +
  'names in its sshd_config to 32 KB.';

export function createHostKeyError(hop: SshHop, shown: HostKey | undefined): SshError {
  const stage = 'host_key';
  if (shown === undefined) return createHopError(hop, { failure: 'error', stage, message: UNKNOWN_HOST_KEY });
  if (hop.hostKey === null) {
    const message =
      `The server shows the host key ${shown.type} ${shown.fingerprint}, which has not been confirmed. Compare it ` +
      'with "ssh-keygen -lf" of the server\'s public host key, then confirm it.';
    return createHopError(hop, { failure: 'host_key_unknown', stage, message, hostKey: shown });
  }
  const message =
    `The server shows another host key than the confirmed one: ${shown.type} ${shown.fingerprint} instead of ` +
    `${hop.hostKey.type} ${hop.hostKey.fingerprint}. The connection may be intercepted. If the server was ` +
    'reinstalled, confirm the new key.';
  return createHopError(hop, { failure: 'host_key_changed', stage, message, hostKey: shown });
}

interface HandshakeFailure {
  stage: SshStage;
  progress: AuthProgress;
  /** What the server lacks, when no algorithm is in common. */
  mismatch: string | undefined;
  /** Of ssh2; undefined when the connection was closed or nothing is left to try. */
  cause: unknown;
}

/** Maps an error of ssh2. Its text may come from the server and is not shown to users. */
export function toSshHandshakeError(
  hop: SshHop,
  { stage, progress, mismatch, cause }: HandshakeFailure,
): SshError {
  const level = (cause as { level?: unknown } | undefined)?.level;
  if (level === 'client-timeout' && stage === 'authentication') {
    const failure = progress.accepted.length > 0 ? 'auth_failed' : 'offline';
    const message = createAuthTimeoutMessage(progress, READY_TIMEOUT_MS);
    return createHopError(hop, { failure, stage, message, cause });
  }
  if (level === 'client-timeout') {
    const message = `The server did not finish the SSH handshake within ${READY_TIMEOUT_MS / 1000} s.`;
    return createHopError(hop, { failure: 'offline', stage, message, cause });
  }
  if (stage === 'authentication') {
    if (isTooLongPacket(cause))
      return createHopError(hop, { failure: 'error', stage, message: BANNER_TOO_LONG, cause });
    if (level === 'client-authentication' || level === undefined) {
      const message = createAuthFailureMessage(hop.config, progress, cause === undefined);
      return createHopError(hop, { failure: 'auth_failed', stage, message, cause });
    }
    const message = 'The server closed the connection during authentication.';
    return createHopError(hop, { failure: 'offline', stage, message, cause });
  }
  if (level === 'handshake')
    return createHopError(hop, { failure: 'error', stage, message: mismatch ?? NO_SSH, cause });
  const message =
    'The server closed the connection before the SSH handshake had finished. Check the port. The server may also refuse ' +
    'connections from this address (a firewall, fail2ban) or have too many at the moment (MaxStartups).';
  return createHopError(hop, { failure: 'offline', stage, message, cause });
}

/** ssh2 takes packets of 35,000 bytes (RFC 4253, 6.1). Only a banner is longer at this stage. */
function isTooLongPacket(cause: unknown): boolean {
  return cause instanceof Error && cause.message.startsWith('Bad packet length');
}

/** Creates an error of one hop. The message names a jump server, because the user sees the server behind it. */
export function createHopError(hop: SshHop, options: Omit<SshErrorOptions, 'hop'>): SshError {
  const prefix = hop.id === null ? '' : `Jump server ${hop.config.host}:${hop.config.port}: `;
  return new SshError({ ...options, hop: hop.id, message: `${prefix}${options.message}` });
}
