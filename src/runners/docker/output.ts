import type { RunEvent } from '../runner.ts';
import { demultiplex } from './demultiplex.ts';
import { createMarkerParser } from './marker-stream.ts';
import { isScriptMarker, type ScriptMarker } from './script.ts';
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
  const parser = createMarkerParser(markerPrefix, (text) => {
    if (isScriptMarker(text)) markers.add(text);
  });
  for await (const { stream, data } of demultiplex(drainAfterExit(session))) {
    const programOutput = stream === 'stderr' ? parser.push(data) : data;
    // The order between the two streams is not fixed, so the first output also counts as the start.
    if (!hasStarted && (markers.has('start') || programOutput.length > 0)) {
      hasStarted = true;
      markers.add('start');
      yield { type: 'phase', phase: 'started' };
    }
    if (programOutput.length > 0) yield { type: 'output', stream, data: programOutput };
  }
  const programOutput = parser.flush();
  if (programOutput.length > 0) yield { type: 'output', stream: 'stderr', data: programOutput };
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
