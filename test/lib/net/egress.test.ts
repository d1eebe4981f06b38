import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createEgressPolicy, parseEndpoint, type EgressOptions } from '../../../src/lib/net/egress.ts';

const PUBLIC = '93.184.216.34';

function policy(options: Partial<EgressOptions> = {}) {
  return createEgressPolicy({
    mode: 'deployed',
    allow: undefined,
    deny: [],
    forbidden: () => [],
    ownAddresses: () => ['127.0.0.1', '::1'],
    lookup: () => Promise.resolve([PUBLIC]),
    ...options,
  });
}

/** Applies the policy to a user's endpoint. @returns its allowed addresses, or the error's code. */
async function evaluate(endpoint: string, options: Partial<EgressOptions> = {}): Promise<string> {
  try {
    const url = parseEndpoint(endpoint);
    const port = Number(url.port) || (url.protocol === 'https:' ? 443 : 80);
    return (await policy(options).resolveAllowed(url.hostname, port)).map((entry) => entry.address).join(' ');
  } catch (error) {
    return (error as { code: string }).code;
  }
}

const resolvingTo = (...addresses: string[]) => ({ lookup: () => Promise.resolve(addresses) });

describe('parseEndpoint', () => {
  it.each([
    ['https://api.example.com/v1', 'https://api.example.com/v1'],
    ['https://api.example.com/v1/', 'https://api.example.com/v1'],
    ['HTTPS://API.Example.COM.:443/V1', 'https://api.example.com/V1'],
    ['http://host', 'http://host/'],
    ['http://host/', 'http://host/'],
    ['http://my_service:8080/a-b/c.d/~e/f_', 'http://my_service:8080/a-b/c.d/~e/f_'],
    ['http://xn--bcher-kva.example/v1', 'http://xn--bcher-kva.example/v1'],
    ['http://[2606:4700:0::1111]:8080/v1', 'http://[2606:4700::1111]:8080/v1'],
    ['http://[::FFFF:127.0.0.1]/', 'http://[::ffff:7f00:1]/'],
    ['http://2130706433', 'http://127.0.0.1/'],
    ['http://0x7f.1', 'http://127.0.0.1/'],
    ['http://0177.0.0.1', 'http://127.0.0.1/'],
    ['http://127.1', 'http://127.0.0.1/'],
    ['http://127.0.0.1.', 'http://127.0.0.1/'],
  ])('reads %s as %s', (text, href) => {
    expect(parseEndpoint(text).href).toBe(href);
  });

  it.each([
    ...['', 'host', 'host:80', '//host/v1', 'http:host', 'http:/host', 'http:///v1', 'http://', 'http://:80'],
    ...[
      'ftp://host',
      'file:///etc/passwd',
      'javascript:alert(1)',
      'ws://host',
      'unix:/run/s',
      'data:,x',
      'gopher://h',
    ],
    ...[
      'http://user@host',
      'http://user:pw@host',
      'http://:pw@host',
      'http://host@127.0.0.1',
      'http://@host',
    ],
    ...[
      'http://host?q',
      'http://host/?q=1',
      'http://host#f',
      'http://host/v1#',
      'http://host?',
      'http://a#@b/',
    ],
    ...['http://host/a//b', 'http://host//', 'http://host/..', 'http://host/a/../b', 'http://host/./a'],
    ...[
      'http://host/%2e%2e/a',
      'http://host/a%2fb',
      'http://host/a b',
      'http://host/a;b',
      'http://host/ü',
      'http://host/a:b',
    ],
    ...[
      'http://%31%32%37.0.0.1',
      'http://127.0.0.1%00.example.com',
      'http://１２７.0.0.1',
      'http://127。0。0。1',
    ],
    ...[
      'http://ⓛocalhost',
      'http://bücher.example',
      'http:\\\\host',
      'http://host\\a',
      'http://host\t',
      '\thttp://host',
    ],
    ...[
      ' http://host',
      'http://host ',
      'http://ho\nst',
      'http://host\n',
      'ht\ntp://host',
      'http://host/v1\r\nx: y',
    ],
    ...[
      'http://host:',
      'http://host:0',
      'http://host:65536',
      'http://host:99999',
      'http://host:-1',
      'http://host:8a',
    ],
    ...[
      'http://[fe80::1%25eth0]/',
      'http://[fe80::1%eth0]',
      'http://[::1',
      'http://::1',
      'http://[::g]',
      'http://[127.0.0.1]',
    ],
    ...[
      'http://256.256.256.256',
      'http://1.2.3.4.5',
      'http://0x100000000',
      'http://host.1',
      'http://host..',
      'http://.',
    ],
  ])('refuses %j', (text) => {
    expect(() => parseEndpoint(text)).toThrow(expect.objectContaining({ code: 'endpoint_forbidden' }));
  });

  it('takes 256 characters and refuses 257', () => {
    const base = 'http://host/';
    expect(parseEndpoint(base + 'a'.repeat(256 - base.length)).host).toBe('host');
    expect(() => parseEndpoint(base + 'a'.repeat(257 - base.length))).toThrow('endpoint_forbidden');
  });
});

/** One address of each range, in every spelling that URLs permit. */
const SPELLINGS: Record<string, string[]> = {
  loopback: [
    '127.0.0.1',
    '127.1',
    '127.0.1',
    '2130706433',
    '017700000001',
    '0x7f000001',
    '0x7f.1',
    '0177.0.0.01',
  ],
  'loopback, again': ['127.0.0.1.', '127.255.0.9', '[::1]', '[0:0:0:0:0:0:0:1]', '[0000::0001]'],
  'loopback, carried': [
    '[::ffff:127.0.0.1]',
    '[::FFFF:7F00:1]',
    '[::127.0.0.1]',
    '[64:ff9b::7f00:1]',
    '[2002:7f00:1::]',
  ],
  'RFC 1918': [
    '10.0.0.1',
    '10.1',
    '167772161',
    '0xa000001',
    '172.16.0.1',
    '192.168.1.1',
    '0300.0250.1.1',
    '192.168.257',
  ],
  'RFC 1918, carried': [
    '[::ffff:10.0.0.1]',
    '[64:ff9b::10.0.0.1]',
    '[2002:a00:1::1]',
    '[2001:0:808:808::f5ff:fffe]',
  ],
  'ULA and CGNAT': ['[fd12::1]', '[FC00::1]', '100.64.0.1', '1681915905', '[::ffff:100.64.0.1]'],
  metadata: [
    '169.254.169.254',
    '169.254.43518',
    '2852039166',
    '0xa9fea9fe',
    '0251.0376.0251.0376',
    '[fd00:ec2::254]',
  ],
  'metadata, again': [
    '100.100.100.200',
    '168.63.129.16',
    '0xa83f8110',
    '[::ffff:169.254.169.254]',
    '[64:ff9b::a9fe:a9fe]',
  ],
  'link-local': ['169.254.1.1', '[fe80::1]', '[febf::1]'],
  unspecified: ['0.0.0.0', '0', '0x0', '00', '0.1', '[::]', '[::ffff:0:0]', '[0::0]'],
  'multicast, broadcast': ['224.0.0.1', '[ff02::1]', '255.255.255.255', '4294967295', '0xffffffff'],
  reserved: ['240.0.0.1', '192.0.2.1', '198.18.0.1', '[2001:db8::1]', '[fec0::1]', '[64:ff9b:1::a00:1]'],
};
const NEVER = [
  'metadata',
  'metadata, again',
  'link-local',
  'unspecified',
  'multicast, broadcast',
  'reserved',
];
const EVERYTHING = ['0.0.0.0/0', '::/0'];

describe("users' addresses", () => {
  for (const [kind, hosts] of Object.entries(SPELLINGS)) {
    it.each(hosts)(`are refused as ${kind} in the spelling %s`, async (host) => {
      expect(await evaluate(`http://${host}/v1`)).toBe('endpoint_forbidden');
      expect(await evaluate(`https://${host}:8443`)).toBe('endpoint_forbidden');
    });
  }

  for (const kind of NEVER) {
    it.each(SPELLINGS[kind] ?? [])(
      `stay refused as ${kind} even if everything is allowed: %s`,
      async (host) => {
        expect(await evaluate(`http://${host}`, { allow: EVERYTHING })).toBe('endpoint_forbidden');
        expect(await evaluate(`http://${host}`, { mode: 'local' })).toBe('endpoint_forbidden');
        const named = {
          allow: ['host.example'],
          ...resolvingTo(parseEndpoint(`http://${host}`).hostname.replace(/[[\]]/g, '')),
        };
        expect(await evaluate('http://host.example', named)).toBe('endpoint_forbidden');
      },
    );
  }

  it.each(Object.values(SPELLINGS).flat())('are refused when a name resolves to %s', async (host) => {
    const address = parseEndpoint(`http://${host}`).hostname.replace(/[[\]]/g, '');
    expect(await evaluate('https://host.example', resolvingTo(address))).toBe('endpoint_forbidden');
    // One forbidden address refuses all, at every position.
    expect(await evaluate('https://host.example', resolvingTo(PUBLIC, address))).toBe('endpoint_forbidden');
    expect(await evaluate('https://host.example', resolvingTo(address, PUBLIC))).toBe('endpoint_forbidden');
  });

  it('are refused when an IPv6 form embeds a private IPv4 address, as literal and from DNS', async () => {
    const tail = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255));
    const head = fc.constantFrom([10], [127], [192, 168], [172, 20], [169, 254], [100, 100], [0]);
    await fc.assert(
      fc.asyncProperty(head, tail, async (start, rest) => {
        const [a = 0, b = 0, c = 0, d = 0] = [...start, ...rest].slice(0, 4);
        const hex = `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
        for (const form of [`::ffff:${hex}`, `64:ff9b::${hex}`, `64:ff9b:1::${hex}`, `2002:${hex}::1`]) {
          expect(await evaluate(`http://[${form}]/v1`)).toBe('endpoint_forbidden');
          expect(await evaluate('http://host.example', resolvingTo(PUBLIC, form))).toBe('endpoint_forbidden');
        }
      }),
    );
  });

  it('are allowed when public, all of them in the order of the lookup', async () => {
    expect(await evaluate('https://host.example/v1', resolvingTo('2606:4700::1111', PUBLIC))).toBe(
      `2606:4700::1111 ${PUBLIC}`,
    );
    expect(await evaluate('https://8.8.8.8')).toBe('8.8.8.8');
    expect(await evaluate('https://[2606:4700::1111]')).toBe('2606:4700::1111');
  });

  it('are refused when the lookup returns something that is not an address', async () => {
    for (const text of ['localhost', '127.1', '', '[::1]', '2606:4700::1111%eth0', '8.8.8.8:80']) {
      expect(await evaluate('https://host.example', resolvingTo(PUBLIC, text))).toBe('endpoint_forbidden');
    }
  });

  it('are refused when a name has no address or the resolver fails', async () => {
    expect(await evaluate('https://host.example', resolvingTo())).toBe('endpoint_forbidden');
    const lookup = () => Promise.reject(new Error('resolver down'));
    expect(await evaluate('https://host.example', { lookup })).toBe('upstream_unreachable');
  });

  it('report for each address whether it is public', async () => {
    const local = policy({ mode: 'local', ...resolvingTo('127.0.0.1', PUBLIC, '::ffff:10.0.0.1') });
    expect((await local.resolveAllowed('host.example', 80)).map((entry) => entry.isPublic)).toEqual([
      false,
      true,
      false,
    ]);
  });

  it('are refused on interfaces of this host unless the operator allows them', async () => {
    const ownAddresses = () => ['127.0.0.1', PUBLIC, '2606:4700:0::1111'];
    expect(await evaluate('https://host.example', { ownAddresses })).toBe('endpoint_forbidden');
    expect(await evaluate('https://[2606:4700::1111]', { ownAddresses })).toBe('endpoint_forbidden');
    expect(await evaluate(`https://[::ffff:${PUBLIC}]`, { ownAddresses, mode: 'local' })).toBe(
      'endpoint_forbidden',
    );
    expect(await evaluate('https://host.example', { ownAddresses, allow: [`${PUBLIC}:443`] })).toBe(PUBLIC);
    const tunnel = { ownAddresses: () => ['2002:101:101::1'] };
    expect(await evaluate('https://[2002:101:101::1]', tunnel)).toBe('endpoint_forbidden');
    expect(await evaluate('https://[2002:101:101::1]', { ...tunnel, allow: ['2002::/16'] })).toBe(
      '2002:101:101::1',
    );
  });
});

describe('EGRESS_ALLOW and EGRESS_DENY', () => {
  it.each([
    'http://127.0.0.1:11434',
    'http://[::1]',
    'http://10.0.0.1',
    'http://192.168.1.1',
    'http://[fd00::1]',
  ])('allow %s by default in local mode, but not in deployed mode', async (endpoint) => {
    expect(await evaluate(endpoint, { mode: 'local' })).not.toBe('endpoint_forbidden');
    expect(await evaluate(endpoint, { mode: 'deployed' })).toBe('endpoint_forbidden');
    expect(await evaluate(endpoint, { mode: 'local', allow: [] })).toBe('endpoint_forbidden');
  });

  it('do not allow CGNAT by default in local mode', async () => {
    expect(await evaluate('http://100.64.0.1', { mode: 'local' })).toBe('endpoint_forbidden');
    expect(await evaluate('http://100.64.0.1', { allow: ['100.64.0.0/10'] })).toBe('100.64.0.1');
  });

  it('allow exactly the address and port that they name', async () => {
    const allow = ['10.0.0.5:8000-8010', '[fd00::5]:443'];
    expect(await evaluate('http://10.0.0.5:8010', { allow })).toBe('10.0.0.5');
    expect(await evaluate('http://[::ffff:10.0.0.5]:8010', { allow })).toBe('::ffff:a00:5');
    expect(await evaluate('https://[fd00::5]', { allow })).toBe('fd00::5');
    for (const endpoint of [
      'http://10.0.0.5:8011',
      'http://10.0.0.6:8000',
      'http://[fd00::5]',
      'http://10.0.0.5',
    ]) {
      expect(await evaluate(endpoint, { allow })).toBe('endpoint_forbidden');
    }
  });

  it('allow a name at any address, but not its address under another name', async () => {
    const options = { allow: ['ollama.lan:11434'], ...resolvingTo('192.168.1.5') };
    expect(await evaluate('http://OLLAMA.lan.:11434', options)).toBe('192.168.1.5');
    expect(await evaluate('http://other.lan:11434', options)).toBe('endpoint_forbidden');
    expect(await evaluate('http://192.168.1.5:11434', options)).toBe('endpoint_forbidden');
    expect(await evaluate('http://ollama.lan:11435', options)).toBe('endpoint_forbidden');
  });

  it('give DENY priority over ALLOW and public addresses, also in embedding forms', async () => {
    const options = { allow: ['10.0.0.0/8'], deny: ['10.0.0.5', `${PUBLIC}:443`, '2606:4700::/32'] };
    expect(await evaluate('http://10.0.0.6', options)).toBe('10.0.0.6');
    expect(await evaluate('http://host.example', options)).toBe(PUBLIC);
    for (const endpoint of [
      'http://10.0.0.5',
      'http://[::ffff:10.0.0.5]',
      'https://host.example',
      'http://[2606:4700::1]',
    ]) {
      expect(await evaluate(endpoint, options)).toBe('endpoint_forbidden');
    }
  });

  it('deny a name also by its current addresses', async () => {
    const lookup = (host: string) => Promise.resolve([host === 'denied.example' ? '9.9.9.9' : PUBLIC]);
    const options = { deny: ['denied.example:443'], lookup };
    expect(await evaluate('https://DENIED.example.', options)).toBe('endpoint_forbidden');
    expect(await evaluate('https://9.9.9.9', options)).toBe('endpoint_forbidden');
    expect(await evaluate('https://host.example', options)).toBe(PUBLIC);
    expect(await evaluate('http://9.9.9.9', options)).toBe('9.9.9.9');
  });

  it('deny a name even when its address changes between two lookups', async () => {
    let count = 0;
    const lookup = () => Promise.resolve([`9.9.9.${count++}`]);
    expect(await evaluate('https://denied.example', { deny: ['denied.example'], lookup })).toBe(
      'endpoint_forbidden',
    );
  });

  it('block nothing for a denied name that does not exist, and everything while it cannot be resolved', async () => {
    const failing = (code: string) => ({
      deny: ['denied.example'],
      lookup: (host: string) =>
        host === 'denied.example'
          ? Promise.reject(Object.assign(new Error(code), { code }))
          : Promise.resolve([PUBLIC]),
    });
    expect(await evaluate('https://host.example', failing('ENOTFOUND'))).toBe(PUBLIC);
    expect(await evaluate('https://host.example', failing('EAI_AGAIN'))).toBe('upstream_unreachable');
  });

  it('are refused at start when an entry is invalid', () => {
    expect(() => policy({ allow: ['10.0.0.0/99'] })).toThrow('"10.0.0.0/99"');
    expect(() => policy({ deny: ['*'] })).toThrow('"*"');
  });
});

describe('our own listeners, database and Keycloak', () => {
  const allow = EVERYTHING;

  it('are refused by address and port, but not on another port', async () => {
    const forbidden = () => [{ host: PUBLIC, port: 8080 }];
    expect(await evaluate('http://host.example:8080', { forbidden })).toBe('endpoint_forbidden');
    expect(await evaluate(`http://[::ffff:${PUBLIC}]:8080`, { forbidden })).toBe('endpoint_forbidden');
    expect(await evaluate('http://host.example:8081', { forbidden })).toBe(PUBLIC);
    expect(await evaluate('http://8.8.8.8:8080', { forbidden })).toBe('8.8.8.8');
  });

  it('are refused at the default ports', async () => {
    expect(await evaluate(`https://${PUBLIC}`, { forbidden: () => [{ host: PUBLIC, port: 443 }] })).toBe(
      'endpoint_forbidden',
    );
    expect(await evaluate(`http://${PUBLIC}`, { forbidden: () => [{ host: PUBLIC, port: 80 }] })).toBe(
      'endpoint_forbidden',
    );
  });

  it.each(['127.0.0.1', '0.0.0.0', '::', '::1', '[::1]', '10.9.9.9', 'localhost'])(
    'bound to %s block their port on every address of this host',
    async (host) => {
      const options = {
        ...{
          allow,
          forbidden: () => [{ host, port: 5433 }],
          ownAddresses: () => ['127.0.0.1', '::1', '10.9.9.9'],
        },
        ...resolvingTo('127.0.0.1'),
      };
      for (const own of [
        '127.0.0.1',
        '127.9.9.9',
        '[::1]',
        '10.9.9.9',
        '[::ffff:10.9.9.9]',
        '[::ffff:127.0.0.1]',
      ]) {
        expect(await evaluate(`http://${own}:5433`, options)).toBe('endpoint_forbidden');
        expect(await evaluate(`http://${own}:5434`, options)).not.toBe('endpoint_forbidden');
      }
      expect(await evaluate('http://10.0.0.1:5433', options)).toBe('10.0.0.1');
    },
  );

  it('are resolved for every connection', async () => {
    let address = '9.9.9.9';
    const lookup = (host: string) => Promise.resolve([host === 'keycloak.example' ? address : PUBLIC]);
    const changing = policy({ lookup, forbidden: () => [{ host: 'keycloak.example', port: 443 }] });
    expect(await changing.resolveAllowed('host.example', 443)).toHaveLength(1);
    address = PUBLIC;
    await expect(changing.resolveAllowed('host.example', 443)).rejects.toThrow('endpoint_forbidden');
  });

  it('are read for every connection, because ports are chosen during the start', async () => {
    const services: { host: string; port: number }[] = [];
    const changing = policy({ forbidden: () => services });
    expect(await changing.resolveAllowed('host.example', 443)).toHaveLength(1);
    services.push({ host: PUBLIC, port: 443 });
    await expect(changing.resolveAllowed('host.example', 443)).rejects.toThrow('endpoint_forbidden');
  });

  it('block their port while their name cannot be resolved', async () => {
    const lookup = (host: string) =>
      host === 'db'
        ? Promise.reject(Object.assign(new Error('gone'), { code: 'ENOTFOUND' }))
        : Promise.resolve([PUBLIC]);
    const options = { lookup, forbidden: () => [{ host: 'db', port: 5432 }] };
    expect(await evaluate('http://host.example:5432', options)).toBe('upstream_unreachable');
    expect(await evaluate('http://host.example:5433', options)).toBe(PUBLIC);
  });
});
