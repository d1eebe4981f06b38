import type { Readable } from 'node:stream';
import { AppError } from '../errors.ts';

/**
 * Reads a body whole.
 * @throws AppError `upstream_malformed` when it is longer than `maxBytes`; what reading fails with.
 */
export async function readBoundedBody(body: Readable, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBytes) throw upstreamMalformed('The provider sent more than is accepted in one answer.');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Ends a body that is not wanted, and with it its connection. */
export function discardBody(body: Readable): void {
  body.on('error', () => undefined).destroy();
}

/** The error for an answer that is none. @param detail for people. */
export function upstreamMalformed(detail: string): AppError {
  return new AppError('upstream_malformed', detail);
}
