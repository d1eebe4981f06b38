import type { RunRequest } from '../../api/runs.ts';
import type { RunLanguage } from '../../texts/runs.ts';

export interface RunValues {
  /** Its id. */
  server: string;
  language: RunLanguage | 'command';
  program: string;
  stdin: string;
  /** One `NAME=value` a line. */
  env: string;
  workdir: string;
  timeoutSeconds: number;
}

/** Prints each figure as a line that the page draws as an image. */
export const FIGURE_LINES = `import base64, io, matplotlib; matplotlib.use("Agg")
import matplotlib.pyplot as plt
def show(*_): buffer = io.BytesIO(); plt.savefig(buffer, format="png"); plt.close(); print("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
plt.show = show`;

/** @returns undefined when a line is not `NAME=value`. Empty lines are skipped. */
export function parseEnv(text: string): Record<string, string> | undefined {
  const entries: [string, string][] = [];
  for (const line of text.split('\n').filter((one) => one.trim() !== '')) {
    const at = line.indexOf('=');
    const name = line.slice(0, at).trim();
    if (at < 1 || !/^[A-Za-z_]\w*$/.test(name)) return undefined;
    entries.push([name, line.slice(at + 1)]);
  }
  return Object.fromEntries(entries);
}

export async function toRunRequest(values: RunValues, files: readonly File[]): Promise<RunRequest> {
  const { language, program, stdin, env, workdir, timeoutSeconds } = values;
  return {
    ...(language === 'command' ? { command: program } : { language, code: program }),
    stdin: stdin === '' ? null : stdin,
    env: parseEnv(env) ?? {},
    workdir: workdir === '' ? null : workdir,
    timeout_ms: timeoutSeconds * 1_000,
    files: await Promise.all(files.map(toRunFile)),
  };
}

async function toRunFile(file: File): Promise<{ path: string; content: string; encoding: 'base64' }> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
  return { path: file.name, content: btoa(text), encoding: 'base64' };
}
