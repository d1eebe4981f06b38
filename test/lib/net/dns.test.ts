import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { createEgressPolicy } from '../../../src/lib/net/egress.ts';
import { createSystemHostLookup, createUntrustedHostLookup } from '../../../src/lib/net/dns.ts';
import { until } from '../../support/local-upstreams.ts';
import { startNameServer, type DnsAnswer } from '../../support/name-server.ts';

const ZONE: Record<string, { 4: DnsAnswer; 6: DnsAnswer }> = {
  'both.example': { 4: ['192.0.2.1', '192.0.2.2'], 6: ['2001:db8:0:0:0:0:0:1'] },
  'four.example': { 4: ['192.0.2.4'], 6: [] },
  'six.example': { 4: [], 6: ['2001:db8:0:0:0:0:0:6'] },
  'broken-six.example': { 4: ['192.0.2.5'], 6: 'failing' },
  'silent-six.example': { 4: ['192.0.2.6'], 6: 'silent' },
  'broken-four.example': { 4: 'failing', 6: ['2001:db8:0:0:0:0:0:7'] },
  'broken.example': { 4: 'failing', 6: 'failing' },
  'empty.example': { 4: [], 6: [] },
  'silent.example': { 4: 'silent', 6: 'silent' },
};

type NameServer = Awaited<ReturnType<typeof startNameServer>>;
let server: NameServer;
const silent: NameServer[] = [];
let directory: string;
let hostsFile: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'names-'));
  hostsFile = path.join(directory, 'hosts');
});
afterAll(() => rm(directory, { recursive: true }));
beforeEach(async () => {
  server = await startNameServer((name, family) => ZONE[name]?.[family] ?? 'absent');
  await writeFile(hostsFile, '');
});
afterEach(async () => {
  for (const each of [server, ...silent.splice(0)]) await each.close();
});

const userLookup = () => createUntrustedHostLookup({ nameServers: [server.address], hostsFile });

/** Number of running lookups by the system; each occupies a thread. */
function countSystemLookups(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'GetAddrInfoReqWrap').length;
}

describe("users' names", () => {
  it.each([
    ['both.example', ['192.0.2.1', '192.0.2.2', '2001:db8::1']],
    ['BOTH.example.', ['192.0.2.1', '192.0.2.2', '2001:db8::1']],
    ['four.example', ['192.0.2.4']],
    ['six.example', ['2001:db8::6']],
    ['broken-six.example', ['192.0.2.5']],
    ['broken-four.example', ['2001:db8::7']],
    ['silent-six.example', ['192.0.2.6']],
  ])(
    'resolve to the addresses of both families, IPv4 first, or of the one that responds: %s',
    async (name, found) => {
      expect(await userLookup()(name)).toEqual(found);
    },
  );

  it.each([
    ['absent.example', 'ENOTFOUND'],
    ['empty.example', 'ENODATA'],
    ['broken.example', 'ESERVFAIL'],
    // Cancelled by our limit, while three name servers are queried twice each.
    ['silent.example', 'ECANCELLED'],
  ])(
    'are not found when no address is returned, without a thread and without waiting for silent name servers: %s',
    async (name, code) => {
      for (const _each of [1, 2]) silent.push(await startNameServer(() => 'silent'));
      const nameServers = [server, ...silent].map(({ address }) => address);
      const result = createUntrustedHostLookup({ nameServers, hostsFile })(name);
      expect(countSystemLookups()).toBe(0);
      await expect(result).rejects.toMatchObject({ code });
      expect(server.asked).toContain(name);
    },
  );

  it('are cancelled at once when the signal aborts, without further queries', async () => {
    const controller = new AbortController();
    const result = userLookup()('silent.example', controller.signal);
    result.catch(() => undefined);
    await until(() => server.asked.length === 2);
    controller.abort();
    await expect(result).rejects.toThrow();
    await expect(userLookup()('silent.example', controller.signal)).rejects.toBe(controller.signal.reason);
    // When the query for a later name is repeated, its own would have been repeated too.
    await expect(userLookup()('silent-six.example')).resolves.toHaveLength(1);
    expect(server.asked.filter((name) => name === 'silent.example')).toHaveLength(2);
  });

  it('resolve to this host for localhost and names below it, without a query', async () => {
    for (const name of ['localhost', 'LOCALHOST.', 'app.localhost']) {
      expect(await userLookup()(name)).toEqual(['127.0.0.1', '::1']);
    }
    expect(server.asked).toEqual([]);
  });

  it('are found in the hosts file first, without a query', async () => {
    const lines = [
      '# 192.0.2.99 comment.lan',
      '192.0.2.10\tnas.lan  NAS other # 192.0.2.98 hidden.lan',
      '  fd00::10 nas.lan\r',
      '192.0.2.10 nas.lan',
      'nonsense nas.lan',
      '192.0.2.11 four.example localhost',
    ];
    await writeFile(hostsFile, lines.join('\n'));
    const lookup = userLookup();
    expect(await lookup('NAS.lan.')).toEqual(['192.0.2.10', 'fd00::10']);
    expect(await lookup('nas')).toEqual(['192.0.2.10']);
    expect(await lookup('four.example')).toEqual(['192.0.2.11']);
    expect(await lookup('localhost')).toEqual(['192.0.2.11']);
    expect(server.asked).toEqual([]);
    for (const name of ['comment.lan', 'hidden.lan', 'constructor']) {
      await expect(lookup(name)).rejects.toThrow();
    }
  });

  it('follow changes of the hosts file, also its removal', async () => {
    const lookup = userLookup();
    expect(await lookup('four.example')).toEqual(['192.0.2.4']);
    await writeFile(hostsFile, '192.0.2.11 four.example');
    expect(await lookup('four.example')).toEqual(['192.0.2.11']);
    await rm(hostsFile);
    expect(await lookup('four.example')).toEqual(['192.0.2.4']);
  });
});

describe("the operator's names", () => {
  it('are looked up by the system; concurrent lookups of one name share one call', async () => {
    const lookup = createSystemHostLookup();
    for (const _round of [1, 2]) {
      const results = Array.from({ length: 50 }, () => lookup('localhost'));
      expect(countSystemLookups()).toBe(1);
      for (const result of await Promise.all(results)) expect(result).toContain('127.0.0.1');
      await until(() => countSystemLookups() === 0);
    }
  });

  it.each([
    ["users' names that EGRESS_ALLOW lists", ['localhost:80'], [], 1],
    ['names in EGRESS_DENY', ['127.0.0.0/8', '::1'], ['localhost:80'], 1],
    ['not names that are listed for another port only', ['localhost:81'], ['localhost:82'], 0],
  ])('include %s', async (_case, allow, deny, systemLookups) => {
    const policy = createEgressPolicy({
      ...{ mode: 'deployed', allow, deny },
      forbidden: () => [],
      nameServers: [server.address],
    });
    const admitted = policy.resolveAllowed('localhost', 80);
    expect(countSystemLookups()).toBe(systemLookups);
    await admitted.catch(() => undefined);
  });

  it('include our own listeners', async () => {
    const policy = createEgressPolicy({
      ...{ mode: 'deployed', allow: [], deny: [], nameServers: [server.address] },
      forbidden: () => [{ host: 'localhost', port: 80 }],
    });
    const admitted = policy.resolveAllowed('absent.example', 80);
    expect(countSystemLookups()).toBe(1);
    await expect(admitted).rejects.toThrow('endpoint_forbidden');
  });
});
