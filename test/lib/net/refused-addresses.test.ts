import { describe, expect, it, jest } from '@jest/globals';
import { createDialer, type Dialer } from '../../../src/lib/net/dialer.ts';
import type { EgressOptions } from '../../../src/lib/net/egress.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';

const INNER: Record<string, string[] | undefined> = {
  'database.internal': ['10.0.0.5'],
  'metadata.internal': ['169.254.169.254'],
  'ours.internal': ['203.0.113.7'],
};
const failure = (code: string) => Object.assign(new Error(`lookup failed: ${code}`), { code });

/** A deployed installation in whose network the names of INNER exist. */
function createInnerDialer(onRefused: EgressOptions['onRefused'] & object = () => undefined): Dialer {
  return createDialer({
    ...{ mode: 'deployed', allow: undefined, deny: [], connectTimeoutMs: 1_000, onRefused },
    forbidden: () => [{ host: '203.0.113.7', port: 5432 }],
    lookup: (name) => {
      const addresses = INNER[name] ?? (name === 'empty.internal' ? [] : undefined);
      if (addresses !== undefined) return Promise.resolve(addresses);
      return Promise.reject(failure(name === 'no-address.internal' ? 'ENODATA' : 'ENOTFOUND'));
    },
  });
}

const HOSTS: [host: string, reason: string][] = [
  ['absent.internal', 'not_found'],
  ['no-address.internal', 'not_found'],
  ['empty.internal', 'not_found'],
  ['database.internal', 'forbidden'],
  ['metadata.internal', 'forbidden'],
  ['ours.internal', 'forbidden'],
  ['10.0.0.5', 'forbidden'],
];

/** What a user can see of an error. */
async function describeError(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => new Error('no error'),
    (thrown: unknown) => thrown as Error,
  );
  const shown = ['code', 'status', 'detail', 'extra', 'errors', 'headers', 'failure', 'stage', 'message'];
  return JSON.stringify(error, shown);
}

describe('a host that does not exist and one that is not allowed', () => {
  const never = new AbortController().signal;
  const ways: [name: string, use: (dialer: Dialer, host: string) => Promise<unknown>][] = [
    ['when an endpoint is stored', (dialer, host) => dialer.checkEndpoint(`http://${host}:5432/v1`)],
    [
      'when a request is sent',
      (dialer, host) =>
        dialer.request({
          ...{ url: new URL(`http://${host}:5432/v1`), isGuarded: true, method: 'GET', headers: {} },
          ...{ firstByteTimeoutMs: 1_000, idleTimeoutMs: 1_000 },
          signal: never,
        }),
    ],
    ['when a connection is opened', (dialer, host) => dialer.connect(host, 5432, never)],
    [
      'when an SSH server is used',
      (dialer, host) =>
        createSshConnections({ dialer }).exec(
          {
            ...{ serverId: 's', owner: 'user:1', version: 1, hostKey: null, jumpServers: new Map() },
            config: { host, port: 5432, username: 'u', auth_method: 'password', password: 'p' },
          },
          'true',
          never,
        ),
    ],
  ];

  it.each(ways)('have the same error %s', async (_name, use) => {
    const dialer = createInnerDialer();
    const errors = new Set<string>();
    for (const [host] of HOSTS) errors.add(await describeError(use(dialer, host)));
    expect([...errors]).toEqual([expect.stringMatching(/not found, or may not be reached/)]);
    await dialer.close();
  });

  it('differ in the log only', async () => {
    const onRefused = jest.fn();
    const dialer = createInnerDialer(onRefused);
    for (const [host, reason] of HOSTS) {
      await expect(dialer.connect(host, 5432, never)).rejects.toThrow('endpoint_forbidden');
      expect(onRefused).toHaveBeenLastCalledWith({ host, port: 5432, reason });
    }
    await dialer.close();
  });

  it('of which the resolver knows nothing at the moment can be tried again', async () => {
    const dialer = createDialer({
      ...{ mode: 'deployed', allow: undefined, deny: [], connectTimeoutMs: 1_000, forbidden: () => [] },
      lookup: () => Promise.reject(failure('ESERVFAIL')),
    });
    await expect(dialer.connect('host.example', 443, never)).rejects.toThrow('upstream_unreachable');
    await dialer.close();
  });
});
