import type { Duplex } from 'node:stream';
import ssh2, { type AnyAuthMethod, type Client, type ConnectConfig } from 'ssh2';
import { rejectOnAbort } from '../async/reject-on-abort.ts';
import type { SshHop, SshConfig } from './config.ts';
import { parseHostKey, listHostKeyAlgorithms, isSameHostKey, type HostKey } from './host-key.ts';
import type { KeyLease } from './decrypted-keys.ts';
import {
  PrivateKeyBusyError,
  PrivateKeyError,
  SshError,
  type SshErrorOptions,
  type SshStage,
} from './ssh-error.ts';

/** From the first byte to an authenticated session. A slower server counts as offline. */
const READY_TIMEOUT_MS = 15_000;
const KEEPALIVE_INTERVAL_MS = 15_000;

/**
 * No SHA-1, no CBC, no compression (a few bytes could expand to gigabytes) and no group exchange, in which the
 * server chooses the size of the computation.
 */
const ALGORITHMS = {
  kex: [
    'curve25519-sha256',
    'curve25519-sha256@libssh.org',
    'ecdh-sha2-nistp256',
    'ecdh-sha2-nistp384',
    'ecdh-sha2-nistp521',
    'diffie-hellman-group14-sha256',
    'diffie-hellman-group16-sha512',
  ],
  cipher: [
    'aes128-gcm@openssh.com',
    'aes256-gcm@openssh.com',
    'chacha20-poly1305@openssh.com',
    'aes128-ctr',
    'aes192-ctr',
    'aes256-ctr',
  ],
  hmac: ['hmac-sha2-256-etm@openssh.com', 'hmac-sha2-512-etm@openssh.com', 'hmac-sha2-256', 'hmac-sha2-512'],
  compress: ['none'],
} satisfies ConnectConfig['algorithms'];

/** Called when a hop has passed a stage. */
export type SshStageListener = (stage: SshStage, hop: SshHop) => void;

/**
 * Opens an SSH session over an open transport. The host key is checked before authentication, no agent is used,
 * and channels that the server opens are refused.
 * @throws SshError or the signal's reason; the transport is closed in both cases.
 */
export async function performSshHandshake(
  hop: SshHop,
  transport: Duplex,
  { key, signal, onStage }: HandshakeOptions,
): Promise<Client> {
  try {
    const methods = await readAuthMethods(hop, key, signal);
    signal.throwIfAborted();
    return await startSession(hop, transport, methods, signal, onStage);
  } catch (error) {
    transport.destroy();
    throw error;
  }
}

export interface HandshakeOptions {
  key: KeyLease;
  signal: AbortSignal;
  onStage: SshStageListener;
}

/** The authentication methods, in the order in which they are tried. */
async function readAuthMethods(hop: SshHop, lease: KeyLease, signal: AbortSignal): Promise<AnyAuthMethod[]> {
  // Without a confirmed host key authentication is never reached, so the secrets are not read.
  if (hop.hostKey === null) return [];
  const { username, auth_method, password } = hop.config;
  if (auth_method === 'password') return createPasswordMethods(username, password ?? '');
  const key = await lease.read(signal).catch((error: unknown) => {
    signal.throwIfAborted();
    const stage = 'authentication';
    if (error instanceof PrivateKeyBusyError)
      throw createHopError(hop, { failure: 'busy', stage, message: error.message });
    const message = error instanceof PrivateKeyError ? error.message : 'The private key could not be read.';
    throw createHopError(hop, { failure: 'auth_failed', stage, message });
  });
  return [{ type: 'publickey', username, key }];
}

function createPasswordMethods(username: string, password: string): AnyAuthMethod[] {
  let hasResponded = false;
  return [
    { type: 'password', username, password },
    {
      type: 'keyboard-interactive',
      username,
      // Many servers accept passwords only this way. The password answers a single hidden prompt, and only once.
      prompt: (_name, _instructions, _language, prompts, finish) => {
        const isPassword = !hasResponded && prompts.length === 1 && prompts[0]?.echo !== true;
        hasResponded ||= prompts.length > 0;
        finish(isPassword ? [password] : prompts.map(() => ''));
      },
    },
  ];
}

function startSession(
  hop: SshHop,
  transport: Duplex,
  methods: readonly AnyAuthMethod[],
  signal: AbortSignal,
  onStage: SshStageListener,
): Promise<Client> {
  const client = new ssh2.Client();
  const hostKeyCheck = createHostKeyCheck(hop);
  let stage: SshStage = 'host_key';
  const wait = new Promise<Client>((resolve, reject) => {
    const fail = (error: unknown) => {
      reject(hostKeyCheck.failure() ?? toSshHandshakeError(hop, stage, error));
    };
    client.once('ready', () => {
      onStage('authentication', hop);
      resolve(client);
    });
    client.once('handshake', () => {
      onStage('host_key', hop);
      stage = 'authentication';
    });
    client.once('change password', () => {
      reject(createHopError(hop, { failure: 'auth_failed', stage, message: PASSWORD_EXPIRED }));
    });
    // Never removed: an 'error' event without a listener would end the process.
    client.on('error', fail);
    client.once('close', () => fail(undefined));
  });
  client.connect({
    sock: transport,
    username: hop.config.username,
    hostVerifier: hostKeyCheck.verify,
    authHandler: createAuthHandler(methods),
    algorithms: {
      ...ALGORITHMS,
      serverHostKey: listHostKeyAlgorithms(hop.hostKey),
    } as ConnectConfig['algorithms'],
    readyTimeout: READY_TIMEOUT_MS,
    keepaliveInterval: KEEPALIVE_INTERVAL_MS,
    keepaliveCountMax: 3,
  } as ConnectConfig);
  return rejectOnAbort(wait, signal);
}

const PASSWORD_EXPIRED = 'The password has expired. Set a new one on the server, then enter it here.';

function createHostKeyCheck(hop: SshHop) {
  let failure: SshError | undefined;
  return {
    failure: () => failure,
    verify: (blob: Buffer): boolean => {
      const shown = parseHostKey(blob);
      if (shown === undefined || hop.hostKey === null || !isSameHostKey(shown, hop.hostKey))
        failure = createHostKeyError(hop, shown);
      return failure === undefined;
    },
  };
}

function createHostKeyError(hop: SshHop, shown: HostKey | undefined): SshError {
  const stage = 'host_key';
  if (shown === undefined)
    return createHopError(hop, { failure: 'error', stage, message: NO_COMMON_ALGORITHM });
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

/** ssh2 calls it for the first method and after each refusal. `false` ends the authentication. */
function createAuthHandler(methods: readonly AnyAuthMethod[]) {
  let next = 0;
  return (remaining: string[] | null, isPartial: boolean | null): AnyAuthMethod | false => {
    // Partial success: the server requires a second factor, which is not supported.
    while (next < methods.length && isPartial !== true) {
      const method = methods[next++];
      if (method !== undefined && (remaining === null || remaining.includes(method.type))) return method;
    }
    return false;
  };
}

const NO_COMMON_ALGORITHM =
  'The server offers no SSH on this port, or none of the accepted algorithms. Check the port, and use OpenSSH 6.5 or ' +
  'later.';

/** Maps an error of ssh2. Its text may come from the server and is not shown to users. */
function toSshHandshakeError(hop: SshHop, stage: SshStage, cause: unknown): SshError {
  const level = (cause as { level?: unknown } | undefined)?.level;
  if (level === 'client-timeout') {
    const message = `The server did not finish the SSH handshake within ${READY_TIMEOUT_MS / 1000} s.`;
    return createHopError(hop, { failure: 'offline', stage, message, cause });
  }
  if (stage === 'authentication') {
    if (level === 'client-authentication' || level === undefined)
      return createHopError(hop, {
        failure: 'auth_failed',
        stage,
        message: authFailureMessage(hop.config),
        cause,
      });
    const message = 'The server closed the connection during authentication.';
    return createHopError(hop, { failure: 'offline', stage, message, cause });
  }
  if (level === 'handshake')
    return createHopError(hop, { failure: 'error', stage, message: NO_COMMON_ALGORITHM, cause });
  const message = 'The server closed the connection before the SSH handshake had finished. Check the port.';
  return createHopError(hop, { failure: 'offline', stage, message, cause });
}

function authFailureMessage(config: SshConfig): string {
  return config.auth_method === 'password'
    ? 'The server refused the user name and password, allows no passwords, or requires a second factor.'
    : "The server refused the key for this user: add its public key to the account's ~/.ssh/authorized_keys.";
}

/** Creates an error of one hop. The message names a jump server, because the user sees the server behind it. */
export function createHopError(hop: SshHop, options: Omit<SshErrorOptions, 'hop'>): SshError {
  const prefix = hop.id === null ? '' : `Jump server ${hop.config.host}:${hop.config.port}: `;
  return new SshError({ ...options, hop: hop.id, message: `${prefix}${options.message}` });
}
