import type { Readable } from 'node:stream';
import { AppError } from '../errors.ts';

/**
 * Reads a whole body.
 * @param onBytes called with the number of bytes of each chunk; what it throws ends the reading.
 * @throws AppError `upstream_malformed` when it is longer than `maxBytes`; the stream's error.
 */
export async function readBoundedBody(
  body: Readable,
  maxBytes: number,
  onBytes: (bytes: number) => void = () => undefined,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBytes) throw upstreamMalformed('The response of the provider exceeds the size limit.');
    onBytes(chunk.length);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** True for a body that can be read as it is. Requests ask for no encoding, but some servers compress all the same. */
export function isIdentityEncoded({ 'content-encoding': encoding }: Record<string, unknown>): boolean {
  return encoding === undefined || encoding === 'identity';
}

/** Destroys a body that is not read, and with it its connection. */
export function discardBody(body: Readable): void {
  body.on('error', () => undefined).destroy();
}

/** 502 for an invalid response. @param detail shown to users. */
export function upstreamMalformed(detail: string): AppError {
  return new AppError('upstream_malformed', detail);
}
