import { AppError } from '../../lib/errors.ts';
import { createMarkerReader } from '../marker-stream.ts';
import type { OutputStream, RunEvent } from '../runner.ts';
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

interface DockerOutputChunk {
  stream: OutputStream;
  data: Buffer;
}

const HEADER_BYTES = 8;
/** The engine frames data that it has read, so it never sends empty frames. A few are tolerated. */
const MAX_EMPTY_FRAMES = 64;

/**
 * Splits the stream of an attached container (Engine API, "Attach to a container", stream format): frames of
 * type, three zero bytes, length (big-endian), data. Data is passed on as it arrives and never collected,
 * regardless of the length in the header. A reader that does not request the next chunk pauses the engine.
 * @throws AppError `upstream_malformed`, or the error of `source`.
 */
export async function* demultiplex(source: AsyncIterable<Buffer>): AsyncGenerator<DockerOutputChunk, void> {
  const header = Buffer.alloc(HEADER_BYTES);
  let headerBytes = 0;
  let remainingBytes = 0;
  let emptyFrames = 0;
  let stream: OutputStream = 'stdout';
  for await (let rest of source) {
    while (rest.length > 0) {
      if (remainingBytes > 0) {
        const data = rest.subarray(0, remainingBytes);
        rest = rest.subarray(data.length);
        remainingBytes -= data.length;
        yield { stream, data };
        continue;
      }
      const copied = rest.copy(header, headerBytes);
      headerBytes += copied;
      rest = rest.subarray(copied);
      if (headerBytes < HEADER_BYTES) continue;
      headerBytes = 0;
      stream = readStreamType(header);
      remainingBytes = header.readUInt32BE(4);
      emptyFrames = remainingBytes === 0 ? emptyFrames + 1 : 0;
      if (emptyFrames > MAX_EMPTY_FRAMES) throw malformed();
    }
  }
  if (remainingBytes > 0 || headerBytes > 0) throw malformed();
}

function readStreamType(header: Buffer): OutputStream {
  if (header.readUIntBE(1, 3) !== 0) throw malformed();
  if (header[0] === 1) return 'stdout';
  if (header[0] === 2) return 'stderr';
  throw malformed();
}

function malformed(): AppError {
  return new AppError('upstream_malformed', 'The engine sent output in an invalid format.');
}
