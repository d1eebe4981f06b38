import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Where a process listens: an address, `0.0.0.0` or `::` for all of this host, and a TCP port. */
export interface TcpListener {
  host: string;
  port: number;
}

/** `TCP_LISTEN` in the kernel's numbering (include/net/tcp_states.h). */
const TCP_LISTEN = '0A';

/**
 * The TCP ports that a process of our own user listens on, also those that no setting names: Keycloak's
 * transaction manager (Narayana) holds one on loopback, whose number is its mark of the process.
 * @returns nothing where the system has no such tables (macOS), or when the process is gone.
 */
export function listTcpListeners(pid: number): TcpListener[] {
  try {
    const sockets = readSocketInodes(pid);
    return ['tcp', 'tcp6']
      .flatMap((table) => readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n').slice(1))
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields[3] === TCP_LISTEN && sockets.has(fields[9] ?? ''))
      .map((fields) => parseLocalAddress(fields[1] ?? ''));
  } catch {
    return [];
  }
}

/** The inodes of a process's sockets. */
function readSocketInodes(pid: number): Set<string> {
  const folder = `/proc/${pid}/fd`;
  const inodes = readdirSync(folder).map((fd) => /^socket:\[(\d+)\]$/.exec(readLink(`${folder}/${fd}`))?.[1]);
  return new Set(inodes.filter((inode) => inode !== undefined));
}

/** A file that the process has closed since the folder was read has no link any more. */
function readLink(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}

/**
 * Reads `0100007F:1F90` (proc_pid_net(5)): words of four bytes, each in the order of the machine, which is
 * little-endian on all that Node 24 runs on here, and the port.
 */
function parseLocalAddress(text: string): TcpListener {
  const [address = '', port = ''] = text.split(':');
  const bytes = (address.match(/.{8}/g) ?? []).flatMap((word) => [...Buffer.from(word, 'hex')].reverse());
  return { host: formatAddress(bytes), port: Number.parseInt(port, 16) };
}

function formatAddress(bytes: number[]): string {
  const isMapped =
    bytes.length === 16 && bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff;
  if (bytes.length === 4 || isMapped) return bytes.slice(-4).join('.');
  const groups = Array.from({ length: 8 }, (_, at) => (bytes[2 * at] ?? 0) * 256 + (bytes[2 * at + 1] ?? 0));
  return new URL(`http://[${groups.map((group) => group.toString(16)).join(':')}]`).hostname.slice(1, -1);
}
