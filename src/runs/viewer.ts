import { isUtf8 } from 'node:buffer';
import { once } from 'node:events';
import type { Response } from 'express';
import type { NumberedEvent, ViewerEvent, RunExit } from './events.ts';
import type { RunResult } from './schema.ts';
import { toSseFrame, toWireExit } from './events.ts';

/** A comment is sent after this time without an event, so that proxies keep the connection open. */
const PING_INTERVAL_MS = 15_000;
const PING = ': ping\n\n';
const IDLE_TIMEOUT_MS = 120_000;
/** Output bytes in a response that waits for the exit. */
const MAX_RESULT_BYTES = 1024 * 1024;

/**
 * Streams the events of a run to a viewer as server-sent events. A slow viewer delays only its own response.
 * @param idleMs a viewer that reads nothing for this long is disconnected.
 * @returns when the events have ended or the viewer is gone; `signal` ends the response at once.
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

/** @returns false when the viewer is gone or reads nothing. */
async function waitForDrain(response: Response, signal: AbortSignal, idleMs: number): Promise<boolean> {
  try {
    await once(response, 'drain', { signal: AbortSignal.any([signal, AbortSignal.timeout(idleMs)]) });
    return true;
  } catch {
    return false;
  }
}

/**
 * Reads the events of a run up to its exit.
 * @returns undefined when the events end without an exit.
 */
export async function collectResult(
  runId: string,
  events: AsyncIterable<NumberedEvent>,
): Promise<RunResult | undefined> {
  const output = createOutputCollector();
  for await (const { event } of events) {
    if (event.type === 'exit') return { run_id: runId, exit: toWireExit(event), ...output.result() };
    output.add(event);
  }
  return undefined;
}

function createOutputCollector() {
  const chunks: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] };
  let remainingBytes = MAX_RESULT_BYTES;
  let truncated = false;
  return {
    add(event: Exclude<ViewerEvent, RunExit>): void {
      if (event.type === 'truncated') truncated = true;
      if (event.type !== 'output') return;
      // After the first dropped output, all later output is dropped too.
      if (truncated || event.data.length > remainingBytes) truncated = true;
      else {
        remainingBytes -= event.data.length;
        chunks[event.stream].push(event.data);
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
