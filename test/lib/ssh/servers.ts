import { afterEach } from '@jest/globals';
import { randomId } from '../../../src/lib/ids.ts';
import { createDialer, type Dialer } from '../../../src/lib/net/dialer.ts';
import { sshConfig, type SshConfig, type SshServer } from '../../../src/lib/ssh/config.ts';
import { createSshConnections, type SshConnections } from '../../../src/lib/ssh/connections.ts';
import { sshHosts, type SshServer as SshAddress } from '../../support/hosts.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Registers a cleanup for the end of the current test. Cleanups run in reverse order. */
export function afterThisTest(cleanup: () => unknown): void {
  cleanups.push(cleanup);
}

/** A dialer in local mode, for hosts on loopback and in private networks. */
export function localDialer(connectTimeoutMs = 5_000): Dialer {
  return createDialer({ mode: 'local', allow: undefined, deny: [], forbidden: () => [], connectTimeoutMs });
}

/** Opens connections that are closed after the test, and counts the TCP connections. */
export function openConnections(): { connections: SshConnections; dials: () => number } {
  const dialer = localDialer();
  let count = 0;
  const connections = createSshConnections({
    dialer: {
      connect: (host, port, signal) => {
        count += 1;
        return dialer.connect(host, port, signal);
      },
    },
  });
  afterThisTest(async () => {
    await connections.close();
    await dialer.close();
  });
  return { connections, dials: () => count };
}

/** A server with the test account and its password. `changes` replace members of its config, `overrides` others. */
export function serverAt(
  address: SshAddress,
  changes: Partial<Record<keyof SshConfig, unknown>> = {},
  overrides: Partial<SshServer> = {},
): SshServer {
  const { user, password } = sshHosts();
  const { host, port, hostKey } = address;
  const config = { host, port, username: user, auth_method: 'password', password, ...changes };
  const defaults = { serverId: randomId(), owner: 'user:test' as const, version: 1, jumpServers: new Map() };
  return { ...defaults, hostKey, config, ...overrides };
}

/** Parses the config, as the product does before it passes a server to a runner. */
export function withParsedConfig<T extends SshServer>(server: T): T & { config: SshConfig } {
  return { ...server, config: sshConfig.parse(server.config) };
}

export const neverAborted = () => new AbortController().signal;
