import type { NextFunction, Request, Response } from 'express';
import type { IncomingMessage } from 'node:http';
import { isLoopbackHost } from '../lib/addresses.ts';
import { AppError } from '../lib/errors.ts';

export interface HostCheckOptions {
  mode: 'local' | 'deployed';
  publicUrl: string;
  /** Where Keycloak reaches the app; accepted for the back-channel logout only. */
  internalUrl: string;
}

const PROBES = new Set(['/livez', '/readyz']);
const BACKCHANNEL_LOGOUT = '/auth/backchannel-logout';

interface Address {
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
export function createHostCheck(options: HostCheckOptions) {
  const publicAddress = addressOfUrl(options.publicUrl);
  const internalAddress = addressOfUrl(options.internalUrl);
  const defaultPort = options.publicUrl.startsWith('https:') ? '443' : '80';
  const internalDefaultPort = options.internalUrl.startsWith('https:') ? '443' : '80';

  function isOurs(request: Request, text: string): boolean {
    const host = addressOfHost(text, defaultPort);
    if (host === undefined) return false;
    if (same(host, publicAddress)) return true;
    if (options.mode === 'local' && isLoopbackHost(host.name) && host.port === publicAddress.port) {
      return true;
    }
    if (PROBES.has(request.path)) return same(addressOfHost(text, '80'), addressOfSocket(request));
    return (
      request.path === BACKCHANNEL_LOGOUT && same(addressOfHost(text, internalDefaultPort), internalAddress)
    );
  }

  return (request: Request, _response: Response, next: NextFunction): void => {
    const host = onlyHostOf(request);
    if (host === undefined || !isOurs(request, host)) {
      throw new AppError('wrong_host', 'This server does not answer under that host name.');
    }
    next();
  };
}

export interface ListenerNames {
  mode: 'local' | 'deployed';
  /** HOST: a name that the operator lets us listen on is ours. */
  host: string;
}

/**
 * True when the Host header is the address that the connection came in on or the configured HOST, with the
 * listener's port; in local mode also any loopback name with it.
 */
export function isHostOfListener(request: IncomingMessage, { mode, host }: ListenerNames): boolean {
  const asked = addressOfHost(onlyHostOf(request) ?? '', '80');
  const own = addressOfSocket(request);
  if (asked === undefined || own?.port !== asked.port) return false;
  return (
    asked.name === own.name ||
    asked.name === host.toLowerCase() ||
    (mode === 'local' && isLoopbackHost(asked.name))
  );
}

/** Undefined when there is none, or more than one. */
function onlyHostOf(request: IncomingMessage): string | undefined {
  const hosts = request.headersDistinct['host'] ?? [];
  return hosts.length === 1 ? hosts[0] : undefined;
}

function same(a: Address | undefined, b: Address | undefined): boolean {
  return a !== undefined && a.name === b?.name && a.port === b.port;
}

function addressOfUrl(text: string): Address {
  const url = new URL(text);
  return { name: url.hostname, port: url.port || (url.protocol === 'https:' ? '443' : '80') };
}

/** Reads `name[:port]`; anything that is more than that (a path, a user) is undefined. */
function addressOfHost(text: string, defaultPort: string): Address | undefined {
  const parts = /^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?$/.exec(text);
  if (parts?.[1] === undefined) return undefined;
  return { name: parts[1].toLowerCase(), port: parts[2] ?? defaultPort };
}

function addressOfSocket(request: IncomingMessage): Address | undefined {
  const { localAddress, localPort } = request.socket;
  if (localAddress === undefined || localPort === undefined) return undefined;
  const plain = localAddress.replace(/^::ffff:/, '');
  return { name: plain.includes(':') ? `[${plain}]` : plain, port: String(localPort) };
}
