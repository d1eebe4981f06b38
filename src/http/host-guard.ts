import type { NextFunction, Request, Response } from 'express';
import type { IncomingMessage } from 'node:http';
import { isLoopbackHost } from '../lib/net/addresses.ts';
import { AppError } from '../lib/errors.ts';

export interface HostGuardOptions {
  mode: 'local' | 'deployed';
  publicUrl: string;
  /** The address that Keycloak uses to reach the app. Accepted for back-channel logout only. */
  internalUrl: string;
}

const PROBES = new Set(['/livez', '/readyz']);
const BACKCHANNEL_LOGOUT = '/auth/backchannel-logout';

/** As in a Host header: the name in lower case, IPv6 with brackets. */
interface RequestHost {
  name: string;
  port: string;
}

/**
 * Creates the middleware that refuses unknown Host headers. Without it, a page under another name that resolves to
 * this machine (DNS rebinding) could call the app as its own origin.
 * Accepted are the public address; in local mode any loopback name with the public port; for probes the local address
 * of the connection; for back-channel logout also the internal address.
 * @returns middleware that throws AppError `wrong_host` (421).
 */
export function createHostGuard(options: HostGuardOptions) {
  const publicHost = parseUrlHost(options.publicUrl);
  const internalHost = parseUrlHost(options.internalUrl);
  const defaultPort = options.publicUrl.startsWith('https:') ? '443' : '80';
  const internalDefaultPort = options.internalUrl.startsWith('https:') ? '443' : '80';

  function isAllowed(request: Request, text: string): boolean {
    const host = parseHost(text, defaultPort);
    if (host === undefined) return false;
    if (isSameHost(host, publicHost)) return true;
    if (options.mode === 'local' && isLoopbackHost(host.name) && host.port === publicHost.port) {
      return true;
    }
    if (PROBES.has(request.path)) return isSameHost(parseHost(text, '80'), findSocketHost(request));
    return (
      request.path === BACKCHANNEL_LOGOUT && isSameHost(parseHost(text, internalDefaultPort), internalHost)
    );
  }

  return (request: Request, _response: Response, next: NextFunction): void => {
    const host = findSingleHost(request);
    if (host === undefined || !isAllowed(request, host)) {
      throw new AppError(
        'wrong_host',
        'This server is not available under that host name. Use its public URL.',
      );
    }
    next();
  };
}

export interface ListenerHosts {
  mode: 'local' | 'deployed';
  /** The configured HOST; accepted as a name. */
  host: string;
}

/**
 * True when the Host header is the local address of the connection or the configured HOST, with the listener's port;
 * in local mode also any loopback name with that port.
 */
export function isListenerHost(request: IncomingMessage, { mode, host }: ListenerHosts): boolean {
  const requested = parseHost(findSingleHost(request) ?? '', '80');
  const listener = findSocketHost(request);
  if (requested === undefined || listener?.port !== requested.port) return false;
  return (
    requested.name === listener.name ||
    requested.name === host.toLowerCase() ||
    (mode === 'local' && isLoopbackHost(requested.name))
  );
}

/** Undefined when there is no Host header or more than one. */
function findSingleHost(request: IncomingMessage): string | undefined {
  const hosts = request.headersDistinct['host'] ?? [];
  return hosts.length === 1 ? hosts[0] : undefined;
}

function isSameHost(a: RequestHost | undefined, b: RequestHost | undefined): boolean {
  return a !== undefined && a.name === b?.name && a.port === b.port;
}

function parseUrlHost(text: string): RequestHost {
  const url = new URL(text);
  return { name: url.hostname, port: url.port || (url.protocol === 'https:' ? '443' : '80') };
}

/** Parses `name[:port]`; undefined for anything else, such as a path or a user name. */
function parseHost(text: string, defaultPort: string): RequestHost | undefined {
  const parts = /^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?$/.exec(text);
  if (parts?.[1] === undefined) return undefined;
  return { name: parts[1].toLowerCase(), port: parts[2] ?? defaultPort };
}

function findSocketHost(request: IncomingMessage): RequestHost | undefined {
  const { localAddress, localPort } = request.socket;
  if (localAddress === undefined || localPort === undefined) return undefined;
  const address = localAddress.replace(/^::ffff:/, '');
  return { name: address.includes(':') ? `[${address}]` : address, port: String(localPort) };
}
