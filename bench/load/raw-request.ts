import { connect, type Socket } from 'node:net';

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
