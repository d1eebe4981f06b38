import type { RunEvent } from '../runner.ts';
import { demultiplex } from './demultiplex.ts';
import { createMarkerParser } from './marker-stream.ts';
import { isScriptMarker, type ScriptMarker } from './script.ts';
import type { DockerSession } from './session.ts';

/** How long an engine may still hold the output open, without sending any, after it said that the container ended. */
const DRAIN_MS = 10_000;

/**
 * The program's output as it comes, up to its end; what the script records is taken out and added to `records`.
 * @throws AppError `upstream_malformed`, or what the session's stream was destroyed with.
 */
export async function* readDockerOutput(
  session: DockerSession,
  mark: Buffer,
  markers: Set<ScriptMarker>,
): AsyncGenerator<RunEvent, void> {
  let hasStarted = false;
  const parser = createMarkerParser(mark, (text) => {
    if (isScriptMarker(text)) markers.add(text);
  });
  for await (const { stream, data } of demultiplex(drainAfterExit(session))) {
    const programOutput = stream === 'stderr' ? parser.push(data) : data;
    // The two streams overtake each other: the first output is as good a sign as the record.
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

/** Reads the stream; once the container has ended, waiting for more has an end too. Time that the reader takes is not counted. */
async function* drainAfterExit({ stream, exitWait: waiting }: DockerSession): AsyncGenerator<Buffer, void> {
  let hasEnded = false;
  let isReading = false;
  let timer: NodeJS.Timeout | undefined;
  const restartTimer = () => {
    clearTimeout(timer);
    if (hasEnded && isReading)
      timer = setTimeout(() => stream.destroy(new Error('the output did not end')), DRAIN_MS);
  };
  const onExit = () => {
    hasEnded = true;
    restartTimer();
  };
  waiting.exitCode.then(onExit, () => undefined);
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
