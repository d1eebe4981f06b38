import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { HostAndPort } from '../../lib/net/addresses.ts';

/** `TCP_LISTEN` in the kernel's numbering (include/net/tcp_states.h). */
const TCP_LISTEN = '0A';

/**
 * Lists the TCP ports on which a process of the same Unix user listens. This includes ports without a setting:
 * Keycloak's transaction manager (Narayana) opens one on loopback to identify its process.
 * @returns an empty list without /proc (macOS), or if the process has exited.
 */
export function listTcpListeners(pid: number): HostAndPort[] {
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

function readSocketInodes(pid: number): Set<string> {
  const folder = `/proc/${pid}/fd`;
  const inodes = readdirSync(folder).map((fd) => /^socket:\[(\d+)\]$/.exec(readLink(`${folder}/${fd}`))?.[1]);
  return new Set(inodes.filter((inode) => inode !== undefined));
}

/** Returns an empty string if the process has closed the file since the folder was read. */
function readLink(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}

/**
 * Parses `0100007F:1F90` (proc_pid_net(5)): the address as four-byte words in the byte order of the machine, and the
 * port. All supported machines are little-endian.
 */
function parseLocalAddress(text: string): HostAndPort {
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
