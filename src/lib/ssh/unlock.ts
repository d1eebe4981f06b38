import { Worker } from 'node:worker_threads';
import { createPlaces } from '../places.ts';
import { UNREADABLE_KEY } from '../private-key-limits.ts';
import { KeyError } from './key-error.ts';

/** Past this a passphrase is not tried any more: 24 rounds, OpenSSH's default, take a quarter of a second. */
const UNLOCK_MS = 10_000;
const WAIT_MS = 10_000;

const WRONG_PASSPHRASE = 'The passphrase does not open the private key, or the key is damaged.';
const TOO_LONG = 'The passphrase takes too long to be tried.';
const BUSY = 'Too many passphrases are being tried just now. Try again.';

/** Of the process: whatever is asked for, no more threads than these calculate. */
const places = createPlaces(2);

/**
 * Takes off a passphrase in a thread of its own, once one is free.
 * @returns the key as PEM.
 * @throws KeyError, or the reason of `signal`; at once, also where the thread cannot be stopped.
 */
export async function unlockKey(key: string, passphrase: string, signal: AbortSignal): Promise<string> {
  const leave = await takePlace(signal);
  const worker = startWorker({ key, passphrase });
  // Not before: `terminate` cannot interrupt OpenSSL, and a thread that was given up still calculates.
  worker.once('exit', leave);
  const end = AbortSignal.any([signal, AbortSignal.timeout(UNLOCK_MS)]);
  try {
    return await new Promise<string>((resolve, reject) => {
      worker.once('message', (pem: string | null) =>
        pem === null ? reject(new KeyError(WRONG_PASSPHRASE)) : resolve(pem),
      );
      worker.once('error', () => reject(new KeyError(UNREADABLE_KEY)));
      worker.once('exit', () => reject(new KeyError(UNREADABLE_KEY)));
      const giveUp = () => reject(signal.aborted ? (signal.reason as Error) : new KeyError(TOO_LONG));
      if (end.aborted) giveUp();
      else end.addEventListener('abort', giveUp, { once: true });
    });
  } finally {
    void worker.terminate();
  }
}

async function takePlace(signal: AbortSignal): Promise<() => void> {
  try {
    return await places.take(AbortSignal.any([signal, AbortSignal.timeout(WAIT_MS)]));
  } catch {
    signal.throwIfAborted();
    throw new KeyError(BUSY);
  }
}

function startWorker(workerData: { key: string; passphrase: string }): Worker {
  const file = import.meta.url.endsWith('.ts') ? './unlock-key.ts' : './unlock-key.js';
  return new Worker(new URL(file, import.meta.url), {
    workerData,
    env: {},
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 64 },
  });
}
