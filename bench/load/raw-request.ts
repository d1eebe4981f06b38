import { connect, type Socket } from 'node:net';

/**
 * Reads the status of a response, and nothing after it.
 * @throws Error when the connection closes before, or for another protocol.
 */
export function readStatus(socket: Socket): Promise<number> {
  return new Promise((resolve, reject) => {
    const onClose = () => reject(new Error('the connection closed without a response'));
    const onReadable = () => {
      const head = socket.read(STATUS_LENGTH) as Buffer | null;
      if (head === null) return;
      socket.off('readable', onReadable).off('close', onClose);
      const [, status] = /^HTTP\/1\.1 (\d{3})$/.exec(head.toString('latin1')) ?? [];
      if (status === undefined) reject(new Error('the response is not HTTP/1.1'));
      else resolve(Number(status));
    };
    socket.on('readable', onReadable).once('close', onClose);
  });
}

const STATUS_LENGTH = 'HTTP/1.1 200'.length;

/** Opens a connection and sends a POST with a session, whose response is not read. @param sentBytes all by default. */
export function postWithoutReading(
  app: { url: string },
  {
    session,
    path,
    body,
    sentBytes = body.length,
  }: { session: string; path: string; body: Buffer; sentBytes?: number },
): Socket {
  const { hostname, port } = new URL(app.url);
  const socket = connect(Number(port), hostname)
    .on('error', () => undefined)
    .pause();
  const head = `POST ${path} HTTP/1.1\r\nHost: localhost:${port}\r\nCookie: session=${session}\r\n`;
  socket.write(`${head}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`);
  socket.write(body.subarray(0, sentBytes));
  return socket;
}
