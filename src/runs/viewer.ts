import { isUtf8 } from 'node:buffer';
import type { Response } from 'express';
import { createSseWriter, toSseEvent } from '../http/sse.ts';
import type { NumberedEvent, ViewerEvent, RunExit } from './events.ts';
import type { RunResult } from './schema.ts';
import { toWireEvent, toWireExit } from './events.ts';

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
  using sse = createSseWriter(response, { idleComment: 'ping', signal, idleTimeoutMs: idleMs });
  sse.begin();
  try {
    for await (const { seq, event } of events) {
      const { type, ...rest } = toWireEvent(event);
      const data = JSON.stringify({ run_id: runId, seq, type, ...rest });
      const isRead = await sse.write(toSseEvent(data, type, seq)).then(
        () => true,
        () => false,
      );
      if (!isRead) return;
    }
    sse.end();
  } finally {
    if (!response.writableEnded) response.destroy();
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
