import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { userInfo } from 'node:os';
import path from 'node:path';
import { StartError } from '../../lib/errors.ts';
import { parseHostKey, type HostKey } from '../../lib/ssh/host-key.ts';
import { generateSshKeyPair } from '../../lib/ssh/private-key.ts';
import { runToCompletion } from './child.ts';
import { createPrivateFolder } from './data-dir.ts';
import { writePrivateFile } from './secrets.ts';

/** An SSH server on loopback, for one key. Its programs run as the user of this process. */
export interface DemoSshHost {
  host: string;
  port: number;
  username: string;
  hostKey: HostKey;
  /** The only key that the server accepts. It is in no file. */
  privateKey: string;
  /** Ends the server and all connections to it. */
  stop(): Promise<void>;
}

const LOOPBACK = '127.0.0.1';
const MAX_CONNECTIONS = 20;
/** After this time an sshd that ignores SIGTERM is killed. */
const TERMINATION_MS = 5_000;
const SSHD_PATHS = [
  '/usr/sbin/sshd',
  '/usr/local/sbin/sshd',
  '/usr/bin/sshd',
  '/opt/homebrew/sbin/sshd',
  '/run/current-system/sw/bin/sshd',
];
/** Debian's sshd requires the folder when root starts it. Only the service that is not running here creates it. */
const PRIVILEGE_SEPARATION_FOLDER = '/run/sshd';

/** Returns the path of OpenSSH's server, which must be started by its complete path; undefined if it is missing. */
export function findSshd(): string | undefined {
  return SSHD_PATHS.find((file) => existsSync(file));
}

export interface DemoSshHostOptions {
  /** Path of OpenSSH's server. */
  sshd: string;
  /** For the files of the server. It is created, and removed by `stop`. */
  folder: string;
  /** Messages of sshd are appended to this file. */
  logFile: string;
  /** PATH of its programs, so that they find interpreters outside the folders of the system. */
  searchPath: string;
}

/**
 * Starts an SSH server with new keys.
 *
 * This process listens, and starts one `sshd -i` per connection, which reads and writes through pipes. The server can
 * therefore be reached on loopback only, and no connection outlives it: a connection that the app keeps open for later
 * runs would keep an sshd of its own running.
 * @throws StartError with the message of sshd if it refuses its configuration.
 */
export async function startDemoSshHost(options: DemoSshHostOptions): Promise<DemoSshHost> {
  const { sshd, folder } = options;
  const { username } = userInfo();
  const hostKeys = generateSshKeyPair();
  const clientKeys = generateSshKeyPair();
  const hostKey = parseHostKey(Buffer.from(hostKeys.publicKey.split(' ')[1] ?? '', 'base64'));
  if (hostKey === undefined) throw new Error('the generated host key has an unknown type');
  rmSync(folder, { recursive: true, force: true });
  createPrivateFolder(folder);
  writePrivateFile(path.join(folder, 'host_key'), hostKeys.privateKey);
  writePrivateFile(path.join(folder, 'authorized_keys'), `restrict ${clientKeys.publicKey}\n`);
  const configFile = path.join(folder, 'sshd_config');
  writePrivateFile(configFile, createSshdConfig(folder, username, options.searchPath));
  if (process.platform === 'linux' && process.getuid?.() === 0)
    mkdirSync(PRIVILEGE_SEPARATION_FOLDER, { recursive: true, mode: 0o755 });
  try {
    await runToCompletion({ command: sshd, args: ['-t', '-f', configFile], env: {}, cwd: folder });
    const connections = await serveConnections({ ...options, configFile });
    const { port } = connections;
    const stop = async () => {
      await connections.close();
      rmSync(folder, { recursive: true, force: true });
    };
    return { host: LOOPBACK, port, username, hostKey, privateKey: clientKeys.privateKey, stop };
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}

/** Accepts one account with one key, and starts programs only: no terminal, no forwarding, no file of the account. */
function createSshdConfig(folder: string, username: string, searchPath: string): string {
  return [
    `HostKey "${path.join(folder, 'host_key')}"`,
    `AuthorizedKeysFile "${path.join(folder, 'authorized_keys')}"`,
    // The folder of the file has the mode 0700. The check would refuse writable folders above it, such as /tmp.
    'StrictModes no',
    `AllowUsers ${username}`,
    'AuthenticationMethods publickey',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'PermitRootLogin prohibit-password',
    'UsePAM no',
    'UseDNS no',
    'DisableForwarding yes',
    'PermitTTY no',
    'PermitUserRC no',
    'LoginGraceTime 20',
    'PidFile none',
    ...(/^[^"\n]+$/.test(searchPath) ? [`SetEnv "PATH=${searchPath}"`] : []),
    '',
  ].join('\n');
}

interface Connections {
  port: number;
  /** Stops listening, ends all connections and waits for their servers. */
  close(): Promise<void>;
}

async function serveConnections(options: DemoSshHostOptions & { configFile: string }): Promise<Connections> {
  const log = openSync(options.logFile, 'a', 0o600);
  const open = new Map<Socket, ChildProcess>();
  const server = createServer((socket) => {
    const child = spawn(options.sshd, ['-i', '-e', '-f', options.configFile], {
      cwd: options.folder,
      env: {},
      // A Ctrl-C in the terminal must reach this process only, which ends the connections itself.
      detached: true,
      stdio: ['pipe', 'pipe', log],
    });
    open.set(socket, child);
    connectStreams(socket, child);
    child.once('close', () => {
      open.delete(socket);
      socket.destroy();
    });
  });
  // Each connection is a process, and `sshd -i` limits none.
  server.maxConnections = MAX_CONNECTIONS;
  try {
    const port = await listenOnLoopback(server);
    return {
      port,
      async close() {
        server.close();
        await Promise.all([...open].map(([socket, child]) => endConnection(socket, child)));
        closeSync(log);
      },
    };
  } catch (error) {
    closeSync(log);
    throw error;
  }
}

async function endConnection(socket: Socket, child: ChildProcess): Promise<void> {
  const ended = once(child, 'close');
  socket.destroy();
  child.kill('SIGTERM');
  const killTimer = setTimeout(() => child.kill('SIGKILL'), TERMINATION_MS);
  await ended;
  clearTimeout(killTimer);
}

function connectStreams(socket: Socket, child: ChildProcess): void {
  // Either side may end first. sshd ends when its input does.
  socket.on('error', () => socket.destroy());
  child.on('error', () => socket.destroy());
  child.stdin?.on('error', () => socket.destroy());
  socket.once('close', () => child.stdin?.end());
  if (child.stdin !== null) socket.pipe(child.stdin);
  child.stdout?.pipe(socket);
}

async function listenOnLoopback(server: Server): Promise<number> {
  server.listen(0, LOOPBACK);
  try {
    await once(server, 'listening');
  } catch (error) {
    throw new StartError(`The demo host cannot listen on ${LOOPBACK}: ${(error as Error).message}`);
  }
  return (server.address() as AddressInfo).port;
}
