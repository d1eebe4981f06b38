import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { randomId } from '../../src/lib/ids.ts';

/** A shell as a reader uses it: variables stay from one block to the next. */
export interface Terminal {
  /** @returns the output, of both streams. @throws Error with the output when a command of the block fails. */
  run(code: string): Promise<string>;
  close(): Promise<void>;
}

/** A command that runs until Ctrl-C. */
export interface OpenTerminal {
  printed(): string;
  /** Sends what a terminal sends at Ctrl-C, to all processes of the command, and waits until all have ended. */
  interrupt(): Promise<void>;
}

interface Place {
  cwd: string;
  env: Record<string, string>;
}

/**
 * Opens a shell that stops at the first failed command, at an unset variable, and when a part of a pipe fails. A response
 * with an error status is a failure of curl (see `CURL_SETTINGS`).
 */
export function openTerminal(place: Place): Terminal {
  const shell = spawn('bash', ['--noprofile', '--norc'], { ...place, stdio: ['pipe', 'pipe', 'pipe'] });
  const ended = once(shell, 'close');
  let text = '';
  let wake: () => void = () => undefined;
  for (const stream of [shell.stdout, shell.stderr])
    stream.setEncoding('utf8').on('data', (part: string) => {
      text += part;
      wake();
    });
  shell.stdin.write('exec 2>&1\nset -euo pipefail\n');
  return {
    async run(code) {
      text = '';
      const end = randomId();
      const file = path.join(place.cwd, 'block.sh');
      writeFileSync(file, code);
      // Commands of the block must not read the lines that follow for the shell.
      shell.stdin.write(`. ${file} </dev/null\necho ${end}\n`);
      const complete = new Promise<boolean>((resolve) => {
        wake = () => {
          if (text.includes(end)) resolve(true);
        };
      });
      if (!(await Promise.race([complete, ended.then(() => false)]))) throw new Error(`${code}\n=> ${text}`);
      return text.replace(end, '').trim();
    },
    async close() {
      shell.stdin.end();
      await ended;
    },
  };
}

/** curl's own settings in `.curlrc`: a status from 400 on is a failure, and its body is printed. */
export const CURL_SETTINGS = 'fail-with-body\nshow-error\n';

/** Starts a command and waits until it says that Ctrl-C ends it. @throws Error with the output when it ends before. */
export async function startInTerminal(code: string, place: Place): Promise<OpenTerminal> {
  const child: ChildProcess = spawn('bash', ['--noprofile', '--norc', '-c', code], {
    ...place,
    // A process group of its own, as in a terminal.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = once(child, 'close');
  let text = '';
  const ready = new Promise<void>((resolve) => {
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (part: string) => {
        text += part;
        if (/Ctrl-C (stops|ends)/.test(text)) resolve();
      });
  });
  const isReady = await Promise.race([ready.then(() => true), ended.then(() => false)]);
  if (!isReady) throw new Error(`${code}\n=> ${text}`);
  return {
    printed: () => text,
    async interrupt() {
      const isRunning = child.exitCode === null && child.signalCode === null;
      if (child.pid !== undefined && isRunning) process.kill(-child.pid, 'SIGINT');
      await ended;
    },
  };
}
