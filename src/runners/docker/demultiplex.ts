import { AppError } from '../../lib/errors.ts';
import type { OutputStream } from '../runner.ts';

export interface DockerOutputChunk {
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
