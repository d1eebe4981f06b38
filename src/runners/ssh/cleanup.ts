import type { ClientChannel } from 'ssh2';
import { CLEANUP_VERIFIED, createCleanupCommand } from './scripts.ts';

const CLEANUP_TIMEOUT_MS = 10_000;
const MAX_RESPONSE_BYTES = 64 * 1024;

/**
 * Kills the remaining processes of a run, removes its files and verifies both, over a separate channel.
 * @returns `unverified` also when the server cannot be reached.
 */
export async function cleanUpSshRun(
  start: (command: string, signal: AbortSignal) => Promise<ClientChannel>,
  runId: string,
): Promise<'verified' | 'unverified'> {
  try {
    const signal = AbortSignal.timeout(CLEANUP_TIMEOUT_MS);
    const response = await readResponse(await start(createCleanupCommand(runId), signal), signal);
    return response.endsWith(CLEANUP_VERIFIED) ? 'verified' : 'unverified';
  } catch {
    return 'unverified';
  }
}

function readResponse(channel: ClientChannel, signal: AbortSignal): Promise<string> {
  let response = '';
  return new Promise((resolve) => {
    const finish = () => {
      channel.close();
      resolve(response);
    };
    signal.addEventListener('abort', finish, { once: true });
    channel.on('error', finish);
    channel.stderr.resume();
    channel.on('data', (chunk: Buffer) => {
      response += chunk.toString('latin1');
      if (response.length > MAX_RESPONSE_BYTES) finish();
    });
    channel.once('close', () => {
      signal.removeEventListener('abort', finish);
      resolve(response);
    });
    channel.end();
  });
}
