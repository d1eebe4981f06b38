import { createServer } from 'node:net';
import { isLoopbackHost } from '../../lib/net/addresses.ts';
import { StartError } from '../../lib/errors.ts';

const LOOPBACK = '127.0.0.1';
/** Addresses that `localhost` can resolve to. */
const LOOPBACK_ADDRESSES = [LOOPBACK, '::1'];
/** Attempts to pick a free port, if the picked one is in use on the other loopback address. */
const MAX_PICKS = 20;
/** Error codes if this machine does not have the address. */
const NO_SUCH_ADDRESS = ['EADDRNOTAVAIL', 'EAFNOSUPPORT'];

/** A configured port. */
export interface RequestedPort {
  /** 0 for any free port. */
  requested: number;
  /** The setting that changes it, for the error message. */
  variable: string;
  host?: string;
}

/** @returns `requested`, or a free port for 0. @throws StartError if the port is in use. */
export async function choosePort(requested: number, variable: string, host = LOOPBACK): Promise<number> {
  return (await findPort(requested, host)) ?? throwInUse([{ requested, variable }]);
}

/**
 * Returns each of `ports`, or a free one for 0.
 * @param laterPorts ports that are chosen later. Where another instance uses one of the first, it often uses these too.
 * @throws StartError that names all ports in use, if one of `ports` is.
 */
export async function choosePorts(
  ports: readonly RequestedPort[],
  laterPorts: readonly RequestedPort[],
): Promise<number[]> {
  const chosen: number[] = [];
  for (const { requested, host } of ports) {
    const port = await findPort(requested, host ?? LOOPBACK);
    if (port === undefined) throwInUse(await listPortsInUse([...ports, ...laterPorts]));
    chosen.push(port);
  }
  return chosen;
}

async function listPortsInUse(ports: readonly RequestedPort[]): Promise<RequestedPort[]> {
  const inUse: RequestedPort[] = [];
  for (const port of ports)
    if ((await findPort(port.requested, port.host ?? LOOPBACK)) === undefined) inUse.push(port);
  return inUse;
}

function throwInUse(ports: readonly RequestedPort[]): never {
  const [first] = ports;
  if (ports.length === 1 && first !== undefined)
    throw new StartError(
      `Port ${first.requested} is in use by another program. Stop that program, or set ${first.variable} to another port (0 picks a free one).`,
    );
  const list = ports.map(({ requested, variable }) => `${variable}=${requested}`).join(', ');
  throw new StartError(
    `Other programs use these ports: ${list}. Stop these programs, or change all of these settings (0 picks a free port).`,
  );
}

/**
 * Returns `requested`, or a free port for 0; undefined if it is in use. On loopback the port must be free on both
 * addresses that `localhost` can resolve to: on the other address, another program could receive passwords meant for
 * this installation.
 */
async function findPort(requested: number, host: string): Promise<number | undefined> {
  const others = isLoopbackHost(host) ? LOOPBACK_ADDRESSES.filter((address) => address !== host) : [];
  for (let picks = 0; picks < (requested === 0 ? MAX_PICKS : 1); picks += 1) {
    const port = await tryToListen(requested, host);
    if (port === undefined) break;
    if (await isFreeOn(others, port)) return port;
  }
  return undefined;
}

/** Replaces the host name by 127.0.0.1: `localhost` can resolve to `[::1]`, where another program can listen. */
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
        reject(new StartError(`You are not allowed to listen on port ${port}. Choose a port above 1023.`));
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
