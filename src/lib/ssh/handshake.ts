import type { Duplex } from 'node:stream';
import ssh2, { type Client, type ConnectConfig, type ParsedKey } from 'ssh2';
import { rejectOnAbort } from '../async/reject-on-abort.ts';
import { ALGORITHMS, createAlgorithmOffers } from './algorithms.ts';
import { createAuthentication } from './authentication.ts';
import type { SshHop } from './config.ts';
import type { KeyLease } from './decrypted-keys.ts';
import {
  createHopError,
  createHostKeyError,
  READY_TIMEOUT_MS,
  toSshHandshakeError,
} from './handshake-error.ts';
import { parseHostKey, listHostKeyAlgorithms, isSameHostKey } from './host-key.ts';
import { PrivateKeyBusyError, PrivateKeyError, SshError, type SshStage } from './ssh-error.ts';

const KEEPALIVE_INTERVAL_MS = 15_000;

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
    const readKey = () => readPrivateKey(hop, key, signal);
    // Decrypted before the handshake, whose time is limited. Without a confirmed host key authentication is never
    // reached, so the secrets are not read.
    if (hop.hostKey !== null && hop.config.auth_method === 'key') await readKey();
    signal.throwIfAborted();
    return await startSession(hop, transport, readKey, { signal, onStage });
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

/** @throws SshError or the signal's reason. */
async function readPrivateKey(hop: SshHop, lease: KeyLease, signal: AbortSignal): Promise<ParsedKey> {
  return await lease.read(signal).catch((error: unknown) => {
    signal.throwIfAborted();
    const stage = 'authentication';
    if (error instanceof PrivateKeyBusyError)
      throw createHopError(hop, { failure: 'busy', stage, message: error.message });
    const message = error instanceof PrivateKeyError ? error.message : 'The private key could not be read.';
    throw createHopError(hop, { failure: 'auth_failed', stage, message });
  });
}

async function startSession(
  hop: SshHop,
  transport: Duplex,
  readKey: () => Promise<ParsedKey>,
  { signal, onStage }: Pick<HandshakeOptions, 'signal' | 'onStage'>,
): Promise<Client> {
  const client = new ssh2.Client();
  const hostKeyCheck = createHostKeyCheck(hop);
  const { promise, resolve, reject } = Promise.withResolvers<Client>();
  const authentication = createAuthentication(hop.config, { readKey, onStop: (error) => fail(error) });
  const offers = createAlgorithmOffers();
  let stage: SshStage = 'host_key';

  function fail(cause: unknown): void {
    const failure = hostKeyCheck.failure() ?? (cause instanceof SshError ? cause : undefined);
    reject(
      failure ??
        toSshHandshakeError(hop, {
          stage,
          progress: authentication.progress,
          mismatch: offers.findMismatch(cause),
          cause,
        }),
    );
  }

  client.once('ready', () => {
    onStage('authentication', hop);
    resolve(client);
  });
  client.once('handshake', () => {
    stopDebugging(client);
    onStage('host_key', hop);
    stage = 'authentication';
  });
  client.once('change password', () => {
    authentication.progress.unanswered = 'new_password';
    fail(undefined);
  });
  client.on('banner', (text) => authentication.readBanner(text));
  // Never removed: an 'error' event without a listener would end the process.
  client.on('error', fail);
  client.once('close', () => fail(undefined));
  client.connect({
    sock: transport,
    username: hop.config.username,
    hostVerifier: hostKeyCheck.verify,
    authHandler: authentication.handler,
    algorithms: {
      ...ALGORITHMS,
      serverHostKey: listHostKeyAlgorithms(hop.hostKey),
    } as ConnectConfig['algorithms'],
    debug: (text) => offers.record(text),
    readyTimeout: READY_TIMEOUT_MS,
    keepaliveInterval: KEEPALIVE_INTERVAL_MS,
    keepaliveCountMax: 3,
  } as ConnectConfig);
  return await rejectOnAbort(promise, signal);
}

/** ssh2 builds a text for every packet otherwise. */
function stopDebugging(client: Client): void {
  (client as unknown as { _protocol: { _debug: unknown } })._protocol._debug = undefined;
}

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
