import { Worker } from 'node:worker_threads';
import { createFairSemaphore } from '../async/fair-semaphore.ts';
import { UNREADABLE_PRIVATE_KEY } from '../crypto/private-key-limits.ts';
import type { Owner } from '../owner.ts';
import { PrivateKeyBusyError, PrivateKeyError } from './ssh-error.ts';

/** What is accepted takes about a second on an idle machine. */
const DECRYPTION_TIMEOUT_MS = 10_000;
const QUEUE_TIMEOUT_MS = 10_000;

const WRONG_PASSPHRASE = 'The passphrase does not decrypt the private key, or the key is damaged.';

/** Bounds the decryption threads of this process: one for each owner, in turn. */
const semaphore = createFairSemaphore(2);

/**
 * Decrypts a private key in a worker thread, once one of two is free and the owner has none.
 * @param start starts the thread.
 * @returns the key as PEM.
 * @throws PrivateKeyError, PrivateKeyBusyError or the reason of `signal`, without waiting for a thread that cannot be stopped.
 */
export async function decryptPrivateKey(
  key: string,
  passphrase: string,
  { owner, signal }: { owner: Owner; signal: AbortSignal },
  start = startWorker,
): Promise<string> {
  const release = await acquireSlot(owner, signal);
  const worker = startOrRelease(() => start({ key, passphrase }), release);
  // Not released earlier: `terminate` cannot interrupt OpenSSL, so an abandoned thread still uses a processor.
  worker.once('exit', release);
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(DECRYPTION_TIMEOUT_MS)]);
  try {
    return await new Promise<string>((resolve, reject) => {
      worker.once('message', (pem: string | null) =>
        pem === null ? reject(new PrivateKeyError(WRONG_PASSPHRASE)) : resolve(pem),
      );
      worker.once('error', () => reject(new PrivateKeyError(UNREADABLE_PRIVATE_KEY)));
      worker.once('exit', () => reject(new PrivateKeyError(UNREADABLE_PRIVATE_KEY)));
      const onDeadline = () => reject(signal.aborted ? (signal.reason as Error) : new PrivateKeyBusyError());
      if (deadline.aborted) onDeadline();
      else deadline.addEventListener('abort', onDeadline, { once: true });
    });
  } finally {
    void worker.terminate();
  }
}

async function acquireSlot(owner: Owner, signal: AbortSignal): Promise<() => void> {
  try {
    return await semaphore.acquire(owner, AbortSignal.any([signal, AbortSignal.timeout(QUEUE_TIMEOUT_MS)]));
  } catch {
    signal.throwIfAborted();
    throw new PrivateKeyBusyError();
  }
}

/** @throws PrivateKeyBusyError when no thread can be started, e.g. for want of memory. */
function startOrRelease(start: () => Worker, release: () => void): Worker {
  try {
    return start();
  } catch {
    release();
    throw new PrivateKeyBusyError();
  }
}

function startWorker(workerData: { key: string; passphrase: string }): Worker {
  const file = import.meta.url.endsWith('.ts')
    ? './private-key-decryption-worker.ts'
    : './private-key-decryption-worker.js';
  return new Worker(new URL(file, import.meta.url), {
    workerData,
    env: {},
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 64 },
  });
}
