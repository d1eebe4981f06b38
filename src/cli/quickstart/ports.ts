import { createServer } from 'node:net';
import { StartError } from '../start-error.ts';

const LOOPBACK = '127.0.0.1';

/**
 * The port to use: `wanted`, or a free one for 0.
 * @param variable the setting that changes the port, named when it is busy.
 * @throws StartError when the port is taken.
 */
export async function choosePort(wanted: number, variable: string, host = LOOPBACK): Promise<number> {
  const port = await tryToListen(wanted, host);
  if (port !== undefined) return port;
  throw new StartError(
    `Port ${wanted} is in use by another program. Stop that program, or set ${variable} to another port (0 picks a free one).`,
  );
}

async function tryToListen(port: number, host: string): Promise<number | undefined> {
  const server = createServer();
  const listened = await new Promise<boolean>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(false);
      else if (error.code === 'EACCES')
        reject(new StartError(`Port ${port} needs rights that you do not have.`));
      else reject(error);
    });
    server.listen(port, host, () => {
      resolve(true);
    });
  });
  if (!listened) return undefined;
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : undefined;
}
