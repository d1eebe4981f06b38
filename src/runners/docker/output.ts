import { createMarkerReader } from '../marker-stream.ts';
import type { RunEvent } from '../runner.ts';
import { demultiplex } from './demultiplex.ts';
import { parseScriptMarker, type ScriptMarker } from './script.ts';
import type { DockerSession } from './session.ts';

/** How long the output may stay open without data after the container has ended. */
const DRAIN_TIMEOUT_MS = 10_000;

/**
 * Reads the program's output to its end. Removes the script's markers from it and adds them to `markers`.
 * @throws AppError `upstream_malformed`, or the error that the session's stream was destroyed with.
 */
export async function* readDockerOutput(
  session: DockerSession,
  markerPrefix: Buffer,
  markers: Set<ScriptMarker>,
): AsyncGenerator<RunEvent, void> {
  let hasStarted = false;
  const reader = createMarkerReader(markerPrefix, parseScriptMarker);
  for await (const { stream, data } of demultiplex(drainAfterExit(session))) {
    for (const item of stream === 'stderr' ? reader.read(data) : [data]) {
      const isOutput = Buffer.isBuffer(item);
      if (!isOutput) markers.add(item);
      // The order between the two streams is not fixed, so the first output also counts as the start.
      if (!hasStarted && (isOutput || item === 'start')) {
        hasStarted = true;
        markers.add('start');
        yield { type: 'phase', phase: 'started' };
      }
      if (isOutput) yield { type: 'output', stream, data: item };
    }
  }
  const rest = reader.flush();
  if (rest.length > 0) yield { type: 'output', stream: 'stderr', data: rest };
}

/**
 * Reads the stream. After the container has ended, waiting for more data is limited. Time that the reader
 * takes does not count.
 */
async function* drainAfterExit({ stream, exitWait }: DockerSession): AsyncGenerator<Buffer, void> {
  let hasEnded = false;
  let isReading = false;
  let timer: NodeJS.Timeout | undefined;
  const restartTimer = () => {
    clearTimeout(timer);
    if (hasEnded && isReading)
      timer = setTimeout(() => stream.destroy(new Error('the output did not end')), DRAIN_TIMEOUT_MS);
  };
  const onExit = () => {
    hasEnded = true;
    restartTimer();
  };
  exitWait.exitCode.then(onExit, () => undefined);
  const chunks = (stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  try {
    for (;;) {
      isReading = true;
      restartTimer();
      const next = await chunks.next();
      isReading = false;
      restartTimer();
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    isReading = false;
    restartTimer();
    await chunks.return?.();
  }
}
