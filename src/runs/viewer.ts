import { isUtf8 } from 'node:buffer';
import { once } from 'node:events';
import type { Response } from 'express';
import type { NumberedEvent, ViewerEvent, RunExit } from './events.ts';
import type { RunResult } from './schema.ts';
import { toSseFrame, toWireExit } from './wire-events.ts';

/** A comment goes out after this much silence, so that proxies in between keep the connection. */
const PING_INTERVAL_MS = 15_000;
const PING = ': ping\n\n';
const IDLE_TIMEOUT_MS = 120_000;
/** What is kept for an answer that is waited for. */
const MAX_RESULT_BYTES = 1024 * 1024;

/**
 * Shows a run to a viewer as server-sent events. Whoever reads slowly slows nothing but their own answer.
 * @param idleMs a viewer who takes nothing for so long is given up.
 * @returns when the events or the viewer have ended; `signal` ends the answer where it is.
 */
export async function streamEvents(
  response: Response,
  runId: string,
  events: AsyncIterable<NumberedEvent>,
  signal: AbortSignal,
  idleMs = IDLE_TIMEOUT_MS,
): Promise<void> {
  response.status(200).setHeader('content-type', 'text/event-stream; charset=utf-8');
  response.flushHeaders();
  const ping = setInterval(() => {
    if (!response.writableNeedDrain) response.write(PING);
  }, PING_INTERVAL_MS);
  try {
    for await (const event of events) {
      ping.refresh();
      if (!response.write(toSseFrame(runId, event)) && !(await waitForDrain(response, signal, idleMs)))
        return;
    }
    response.end();
    response.setTimeout(idleMs, () => response.destroy());
  } finally {
    clearInterval(ping);
    if (!response.writableEnded) response.destroy();
  }
}

/** @returns false when the viewer is gone or takes nothing. */
async function waitForDrain(response: Response, signal: AbortSignal, idleMs: number): Promise<boolean> {
  try {
    await once(response, 'drain', { signal: AbortSignal.any([signal, AbortSignal.timeout(idleMs)]) });
    return true;
  } catch {
    return false;
  }
}

/**
 * Reads a run to its end.
 * @returns undefined when the events end without one.
 */
export async function collectResult(
  runId: string,
  events: AsyncIterable<NumberedEvent>,
): Promise<RunResult | undefined> {
  const output = createOutputCollector();
  for await (const { news } of events) {
    if (news.type === 'exit') return { run_id: runId, exit: toWireExit(news), ...output.result() };
    output.add(news);
  }
  return undefined;
}

function createOutputCollector() {
  const chunks: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] };
  let leftBytes = MAX_RESULT_BYTES;
  let truncated = false;
  return {
    add(news: Exclude<ViewerEvent, RunExit>): void {
      if (news.type === 'truncated') truncated = true;
      if (news.type !== 'output') return;
      // Once something is left out, so is all that comes after it.
      if (truncated || news.data.length > leftBytes) truncated = true;
      else {
        leftBytes -= news.data.length;
        chunks[news.stream].push(news.data);
      }
    },
    result() {
      const stdout = encodeBytes(Buffer.concat(chunks.stdout));
      const stderr = encodeBytes(Buffer.concat(chunks.stderr));
      return {
        stdout: stdout.text,
        stdout_encoding: stdout.encoding,
        stderr: stderr.text,
        stderr_encoding: stderr.encoding,
        truncated,
      };
    },
  };
}

function encodeBytes(bytes: Buffer): { text: string; encoding: 'utf8' | 'base64' } {
  const encoding = isUtf8(bytes) ? 'utf8' : 'base64';
  return { text: bytes.toString(encoding), encoding };
}
