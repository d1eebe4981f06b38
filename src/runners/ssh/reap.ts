import type { ClientChannel } from 'ssh2';
import { REAPED, reapCommand } from './scripts.ts';

const REAP_MS = 10_000;
const MAX_ANSWER_BYTES = 64 * 1024;

/**
 * Ends what is left of a run and looks, from a channel of its own.
 * @returns `unverified` also when the server cannot be asked.
 */
export async function reapRun(
  start: (command: string, signal: AbortSignal) => Promise<ClientChannel>,
  runId: string,
): Promise<'verified' | 'unverified'> {
  try {
    const signal = AbortSignal.timeout(REAP_MS);
    const answer = await readAnswer(await start(reapCommand(runId), signal), signal);
    return answer.endsWith(REAPED) ? 'verified' : 'unverified';
  } catch {
    return 'unverified';
  }
}

function readAnswer(channel: ClientChannel, signal: AbortSignal): Promise<string> {
  let answer = '';
  return new Promise((resolve) => {
    const leave = () => {
      channel.close();
      resolve(answer);
    };
    signal.addEventListener('abort', leave, { once: true });
    channel.on('error', leave);
    channel.stderr.resume();
    channel.on('data', (chunk: Buffer) => {
      answer += chunk.toString('latin1');
      if (answer.length > MAX_ANSWER_BYTES) leave();
    });
    channel.once('close', () => {
      signal.removeEventListener('abort', leave);
      resolve(answer);
    });
    channel.end();
  });
}
