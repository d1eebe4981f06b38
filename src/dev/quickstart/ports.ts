import { createServer } from 'node:net';
import { isLoopbackHost } from '../../lib/net/addresses.ts';
import { StartError } from '../../cli/start-error.ts';

const LOOPBACK = '127.0.0.1';
/** What `localhost` may lead to. */
const LOOPBACK_ADDRESSES = [LOOPBACK, '::1'];
/** How often a free port is picked anew that turns out to be taken on the other loopback address. */
const MAX_PICKS = 20;
/** This machine has no such address. */
const NO_SUCH_ADDRESS = ['EADDRNOTAVAIL', 'EAFNOSUPPORT'];

/**
 * The port to use: `wanted`, or a free one for 0. On loopback it must be free on both addresses that
 * `localhost` may lead to: on the other one, another program could wait for passwords that are meant for us.
 * @param variable the setting that changes the port, named when it is busy.
 * @throws StartError when the port is taken.
 */
export async function choosePort(requested: number, variable: string, host = LOOPBACK): Promise<number> {
  const others = isLoopbackHost(host) ? LOOPBACK_ADDRESSES.filter((address) => address !== host) : [];
  for (let picks = 0; picks < (requested === 0 ? MAX_PICKS : 1); picks += 1) {
    const port = await tryToListen(requested, host);
    if (port === undefined) break;
    if (await isFreeOn(others, port)) return port;
  }
  throw new StartError(
    `Port ${requested} is in use by another program. Stop that program, or set ${variable} to another port (0 picks a free one).`,
  );
}

/** The same address without the name `localhost`, which may lead to a listener of somebody else on `[::1]`. */
export function toLoopbackUrl(url: string): string {
  const { protocol, port } = new URL(url);
  return `${protocol}//${LOOPBACK}:${port}`;
}

async function isFreeOn(hosts: readonly string[], port: number): Promise<boolean> {
  for (const host of hosts) {
    try {
      if ((await tryToListen(port, host)) === undefined) return false;
    } catch (error) {
      if (!NO_SUCH_ADDRESS.includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
  return true;
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
