import { isUtf8 } from 'node:buffer';
import type { Response } from 'express';
import { createSseWriter, toSseEvent } from '../http/sse.ts';
import type { OutputStream } from '../runners/runner.ts';
import { toWireEvent, toWireExit, type NumberedEvent } from './events.ts';
import type { RunResult } from './schema.ts';

const IDLE_TIMEOUT_MS = 120_000;

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
  using sse = createSseWriter(response, { keepAlive: ': ping\n\n', signal, idleTimeoutMs: idleMs });
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
 * Builds the response from the kept events of a run.
 * @returns undefined when the events end without an exit.
 */
export async function collectResult(
  runId: string,
  events: AsyncIterable<NumberedEvent>,
): Promise<RunResult | undefined> {
  const chunks: Record<OutputStream, Buffer[]> = { stdout: [], stderr: [] };
  let truncated = false;
  for await (const { event } of events) {
    if (event.type === 'output') chunks[event.stream].push(event.data);
    if (event.type === 'truncated') truncated = true;
    if (event.type !== 'exit') continue;
    const [stdout, stderr] = [encodeBytes(chunks.stdout), encodeBytes(chunks.stderr)];
    return {
      ...{ run_id: runId, exit: toWireExit(event), truncated },
      ...{ stdout: stdout.text, stdout_encoding: stdout.encoding },
      ...{ stderr: stderr.text, stderr_encoding: stderr.encoding },
    };
  }
  return undefined;
}

function encodeBytes(chunks: readonly Buffer[]): { text: string; encoding: 'utf8' | 'base64' } {
  const bytes = Buffer.concat(chunks);
  const encoding = isUtf8(bytes) ? 'utf8' : 'base64';
  return { text: bytes.toString(encoding), encoding };
}
