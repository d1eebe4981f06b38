import type { IncomingMessage, ServerResponse } from 'node:http';

/**
 * Many clients read a response only after they have sent the whole body. More is not read: every piece is a new buffer,
 * so that a client which sends large bodies would keep the garbage collector busy.
 */
const MAX_DROPPED_BYTES = 1024 * 1024;
/** Time for the rest of a request that was answered before its body was complete. */
const UNREAD_BODY_TIMEOUT_MS = 10_000;

/**
 * Bounds what is received of a body whose request is answered before the body is complete: at most 1 MB is dropped, and
 * the connection is closed when the rest does not arrive within 10 s. A body whose reading was paused is not read.
 */
export function limitUnreadBody(request: IncomingMessage, response: ServerResponse): void {
  // Before Node's own listener, which would read all of a body that nothing has begun to read.
  response.prependOnceListener('finish', () => {
    if (!request.complete && !request.isPaused()) dropFirstPart(request);
  });
  response.once('close', () => {
    if (request.complete || request.socket.destroyed) return;
    setTimeout(() => {
      if (!request.complete) request.socket.destroy();
    }, UNREAD_BODY_TIMEOUT_MS).unref();
  });
}

function dropFirstPart(request: IncomingMessage): void {
  let droppedBytes = 0;
  request.on('data', (bytes: Buffer) => {
    droppedBytes += bytes.length;
    if (droppedBytes >= MAX_DROPPED_BYTES) request.pause();
  });
  // Marks the body as being read at once; listening does so later.
  request.read(0);
}
