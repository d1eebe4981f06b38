import type { ClusterApi } from './api.ts';
import { startExec } from './exec.ts';

const MAX_OUTPUT_BYTES = 16 * 1024;

/**
 * Runs a short command in a running pod, without input.
 * @returns undefined if it prints too much or its exit code is unknown. @throws what `startExec` throws.
 */
export async function runPodCommand(
  api: ClusterApi,
  pod: string,
  command: readonly string[],
  signal: AbortSignal,
): Promise<{ code: number; stdout: string } | undefined> {
  const exec = await startExec(api, pod, command, Buffer.alloc(0), signal);
  signal.addEventListener('abort', exec.close);
  if (signal.aborted) exec.close();
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const { data, stream } of exec.output()) {
      bytes += data.length;
      if (bytes > MAX_OUTPUT_BYTES) return undefined;
      if (stream === 'stdout') chunks.push(data);
    }
  } finally {
    signal.removeEventListener('abort', exec.close);
    exec.close();
  }
  const code = exec.code();
  return code === undefined ? undefined : { code, stdout: Buffer.concat(chunks).toString('utf8') };
}
