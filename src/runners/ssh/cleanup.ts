import type { ClientChannel } from 'ssh2';
import { discardChannel } from '../../lib/ssh/discard-channel.ts';
import { createCleanupCommand, NOTHING_FOUND } from './scripts.ts';

const CLEANUP_TIMEOUT_MS = 10_000;
const MAX_RESPONSE_BYTES = 64 * 1024;

/**
 * Kills the processes that a search finds of a run, and removes its files, over a separate channel. That proves nothing:
 * only the report of the run's supervisor does, and it is lost with the run's own channel.
 * @returns whether a last search found nothing; false also when the server cannot be reached.
 */
export async function cleanUpSshRun(
  start: (command: string, signal: AbortSignal) => Promise<ClientChannel>,
  runId: string,
): Promise<boolean> {
  try {
    const signal = AbortSignal.timeout(CLEANUP_TIMEOUT_MS);
    const response = await readResponse(await start(createCleanupCommand(runId), signal), signal);
    return response.endsWith(NOTHING_FOUND);
  } catch {
    return false;
  }
}

function readResponse(channel: ClientChannel, signal: AbortSignal): Promise<string> {
  let response = '';
  return new Promise((resolve) => {
    const finish = () => {
      // The server may go on sending.
      channel.off('data', onData);
      discardChannel(channel);
      resolve(response);
    };
    const onData = (chunk: Buffer) => {
      response += chunk.toString('latin1');
      if (response.length > MAX_RESPONSE_BYTES) finish();
    };
    signal.addEventListener('abort', finish, { once: true });
    channel.on('error', finish);
    channel.stderr.resume();
    channel.on('data', onData);
    channel.once('close', () => {
      signal.removeEventListener('abort', finish);
      resolve(response);
    });
    channel.end();
  });
}
