import type { NextFunction, Request, Response } from 'express';
import type { IncomingMessage } from 'node:http';
import { isLoopbackHost } from '../lib/net/addresses.ts';
import { AppError } from '../lib/errors.ts';

export interface HostGuardOptions {
  mode: 'local' | 'deployed';
  publicUrl: string;
  /** Where Keycloak reaches the app; accepted for the back-channel logout only. */
  internalUrl: string;
}

const PROBES = new Set(['/livez', '/readyz']);
const BACKCHANNEL_LOGOUT = '/auth/backchannel-logout';

interface HostAndPort {
  name: string;
  port: string;
}

/**
 * Builds the middleware that refuses a Host header which is not ours: without it a page of another name that
 * resolves to this machine (DNS rebinding) could talk to the app as its own origin.
 * Accepted: the public address; in local mode any loopback name with its port; on the probes the address that
 * the connection came in on; on back-channel logout also the internal address.
 * It throws AppError `wrong_host` (421).
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
      throw new AppError('wrong_host', 'This server does not answer under that host name.');
    }
    next();
  };
}

export interface ListenerHosts {
  mode: 'local' | 'deployed';
  /** HOST: a name that the operator lets us listen on is ours. */
  host: string;
}

/**
 * True when the Host header is the address that the connection came in on or the configured HOST, with the
 * listener's port; in local mode also any loopback name with it.
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

/** Undefined when there is none, or more than one. */
function findSingleHost(request: IncomingMessage): string | undefined {
  const hosts = request.headersDistinct['host'] ?? [];
  return hosts.length === 1 ? hosts[0] : undefined;
}

function isSameHost(a: HostAndPort | undefined, b: HostAndPort | undefined): boolean {
  return a !== undefined && a.name === b?.name && a.port === b.port;
}

function parseUrlHost(text: string): HostAndPort {
  const url = new URL(text);
  return { name: url.hostname, port: url.port || (url.protocol === 'https:' ? '443' : '80') };
}

/** Reads `name[:port]`; anything that is more than that (a path, a user) is undefined. */
function parseHost(text: string, defaultPort: string): HostAndPort | undefined {
  const parts = /^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?$/.exec(text);
  if (parts?.[1] === undefined) return undefined;
  return { name: parts[1].toLowerCase(), port: parts[2] ?? defaultPort };
}

function findSocketHost(request: IncomingMessage): HostAndPort | undefined {
  const { localAddress, localPort } = request.socket;
  if (localAddress === undefined || localPort === undefined) return undefined;
  const address = localAddress.replace(/^::ffff:/, '');
  return { name: address.includes(':') ? `[${address}]` : address, port: String(localPort) };
}
