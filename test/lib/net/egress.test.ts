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

/** What the policy says of an endpoint as a user would write it: its addresses, or the error's code. */
async function verdict(endpoint: string, options: Partial<EgressOptions> = {}): Promise<string> {
  try {
    const url = parseEndpoint(endpoint);
    const port = Number(url.port) || (url.protocol === 'https:' ? 443 : 80);
    return (await policy(options).resolveAllowed(url.hostname, port)).map((entry) => entry.address).join(' ');
  } catch (error) {
    return (error as { code: string }).code;
  }
}

const answering = (...addresses: string[]) => ({ lookup: () => Promise.resolve(addresses) });

describe('the endpoint grammar', () => {
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

/** One address each of the whole list, in every spelling that a URL can have. */
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

describe('addresses that users bring', () => {
  for (const [kind, hosts] of Object.entries(SPELLINGS)) {
    it.each(hosts)(`are refused as ${kind} in the spelling %s`, async (host) => {
      expect(await verdict(`http://${host}/v1`)).toBe('endpoint_forbidden');
      expect(await verdict(`https://${host}:8443`)).toBe('endpoint_forbidden');
    });
  }

  for (const kind of NEVER) {
    it.each(SPELLINGS[kind] ?? [])(`stay refused as ${kind} whatever is allowed: %s`, async (host) => {
      expect(await verdict(`http://${host}`, { allow: EVERYTHING })).toBe('endpoint_forbidden');
      expect(await verdict(`http://${host}`, { mode: 'local' })).toBe('endpoint_forbidden');
      const named = {
        allow: ['host.example'],
        ...answering(parseEndpoint(`http://${host}`).hostname.replace(/[[\]]/g, '')),
      };
      expect(await verdict('http://host.example', named)).toBe('endpoint_forbidden');
    });
  }

  it.each(Object.values(SPELLINGS).flat())('are refused by DNS answer: %s', async (host) => {
    const address = parseEndpoint(`http://${host}`).hostname.replace(/[[\]]/g, '');
    expect(await verdict('https://host.example', answering(address))).toBe('endpoint_forbidden');
    // One bad address refuses all, wherever it stands in the answer.
    expect(await verdict('https://host.example', answering(PUBLIC, address))).toBe('endpoint_forbidden');
    expect(await verdict('https://host.example', answering(address, PUBLIC))).toBe('endpoint_forbidden');
  });

  it('are refused when an IPv6 form carries a private IPv4 address, by literal and by answer', async () => {
    const tail = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255));
    const head = fc.constantFrom([10], [127], [192, 168], [172, 20], [169, 254], [100, 100], [0]);
    await fc.assert(
      fc.asyncProperty(head, tail, async (start, rest) => {
        const [a = 0, b = 0, c = 0, d = 0] = [...start, ...rest].slice(0, 4);
        const hex = `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
        for (const form of [`::ffff:${hex}`, `64:ff9b::${hex}`, `64:ff9b:1::${hex}`, `2002:${hex}::1`]) {
          expect(await verdict(`http://[${form}]/v1`)).toBe('endpoint_forbidden');
          expect(await verdict('http://host.example', answering(PUBLIC, form))).toBe('endpoint_forbidden');
        }
      }),
    );
  });

  it('are admitted when public, all of them in the order of the answer', async () => {
    expect(await verdict('https://host.example/v1', answering('2606:4700::1111', PUBLIC))).toBe(
      `2606:4700::1111 ${PUBLIC}`,
    );
    expect(await verdict('https://8.8.8.8')).toBe('8.8.8.8');
    expect(await verdict('https://[2606:4700::1111]')).toBe('2606:4700::1111');
  });

  it('are refused when an answer holds something that is not an address', async () => {
    for (const text of ['localhost', '127.1', '', '[::1]', '2606:4700::1111%eth0', '8.8.8.8:80']) {
      expect(await verdict('https://host.example', answering(PUBLIC, text))).toBe('endpoint_forbidden');
    }
  });

  it('fail closed when a name has no address or the resolver fails', async () => {
    expect(await verdict('https://host.example', answering())).toBe('upstream_unreachable');
    const lookup = () => Promise.reject(new Error('resolver down'));
    expect(await verdict('https://host.example', { lookup })).toBe('upstream_unreachable');
  });

  it('tell whether each address is public', async () => {
    const local = policy({ mode: 'local', ...answering('127.0.0.1', PUBLIC, '::ffff:10.0.0.1') });
    expect((await local.resolveAllowed('host.example', 80)).map((entry) => entry.isPublic)).toEqual([
      false,
      true,
      false,
    ]);
  });

  it('are refused when they belong to an interface of this host, unless the operator allows it', async () => {
    const ownAddresses = () => ['127.0.0.1', PUBLIC, '2606:4700:0::1111'];
    expect(await verdict('https://host.example', { ownAddresses })).toBe('endpoint_forbidden');
    expect(await verdict('https://[2606:4700::1111]', { ownAddresses })).toBe('endpoint_forbidden');
    expect(await verdict(`https://[::ffff:${PUBLIC}]`, { ownAddresses, mode: 'local' })).toBe(
      'endpoint_forbidden',
    );
    expect(await verdict('https://host.example', { ownAddresses, allow: [`${PUBLIC}:443`] })).toBe(PUBLIC);
    const tunnel = { ownAddresses: () => ['2002:101:101::1'] };
    expect(await verdict('https://[2002:101:101::1]', tunnel)).toBe('endpoint_forbidden');
    expect(await verdict('https://[2002:101:101::1]', { ...tunnel, allow: ['2002::/16'] })).toBe(
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
  ])('by default let local mode reach %s and deployed mode not', async (endpoint) => {
    expect(await verdict(endpoint, { mode: 'local' })).not.toBe('endpoint_forbidden');
    expect(await verdict(endpoint, { mode: 'deployed' })).toBe('endpoint_forbidden');
    expect(await verdict(endpoint, { mode: 'local', allow: [] })).toBe('endpoint_forbidden');
  });

  it('leave CGNAT out of the default of local mode', async () => {
    expect(await verdict('http://100.64.0.1', { mode: 'local' })).toBe('endpoint_forbidden');
    expect(await verdict('http://100.64.0.1', { allow: ['100.64.0.0/10'] })).toBe('100.64.0.1');
  });

  it('allow exactly the address and port that they name', async () => {
    const allow = ['10.0.0.5:8000-8010', '[fd00::5]:443'];
    expect(await verdict('http://10.0.0.5:8010', { allow })).toBe('10.0.0.5');
    expect(await verdict('http://[::ffff:10.0.0.5]:8010', { allow })).toBe('::ffff:a00:5');
    expect(await verdict('https://[fd00::5]', { allow })).toBe('fd00::5');
    for (const endpoint of [
      'http://10.0.0.5:8011',
      'http://10.0.0.6:8000',
      'http://[fd00::5]',
      'http://10.0.0.5',
    ]) {
      expect(await verdict(endpoint, { allow })).toBe('endpoint_forbidden');
    }
  });

  it('allow a name wherever it points, and its address under no other name', async () => {
    const options = { allow: ['ollama.lan:11434'], ...answering('192.168.1.5') };
    expect(await verdict('http://OLLAMA.lan.:11434', options)).toBe('192.168.1.5');
    expect(await verdict('http://other.lan:11434', options)).toBe('endpoint_forbidden');
    expect(await verdict('http://192.168.1.5:11434', options)).toBe('endpoint_forbidden');
    expect(await verdict('http://ollama.lan:11435', options)).toBe('endpoint_forbidden');
  });

  it('let DENY win over ALLOW and over public addresses, in carried forms too', async () => {
    const options = { allow: ['10.0.0.0/8'], deny: ['10.0.0.5', `${PUBLIC}:443`, '2606:4700::/32'] };
    expect(await verdict('http://10.0.0.6', options)).toBe('10.0.0.6');
    expect(await verdict('http://host.example', options)).toBe(PUBLIC);
    for (const endpoint of [
      'http://10.0.0.5',
      'http://[::ffff:10.0.0.5]',
      'https://host.example',
      'http://[2606:4700::1]',
    ]) {
      expect(await verdict(endpoint, options)).toBe('endpoint_forbidden');
    }
  });

  it('deny a name also by the addresses that it has now', async () => {
    const lookup = (host: string) => Promise.resolve([host === 'denied.example' ? '9.9.9.9' : PUBLIC]);
    const options = { deny: ['denied.example:443'], lookup };
    expect(await verdict('https://DENIED.example.', options)).toBe('endpoint_forbidden');
    expect(await verdict('https://9.9.9.9', options)).toBe('endpoint_forbidden');
    expect(await verdict('https://host.example', options)).toBe(PUBLIC);
    expect(await verdict('http://9.9.9.9', options)).toBe('9.9.9.9');
  });

  it('deny a name under itself even when its answer changes between two look-ups', async () => {
    let count = 0;
    const lookup = () => Promise.resolve([`9.9.9.${count++}`]);
    expect(await verdict('https://denied.example', { deny: ['denied.example'], lookup })).toBe(
      'endpoint_forbidden',
    );
  });

  it('ban nothing by a denied name that does not exist, and everything while it cannot be told', async () => {
    const failing = (code: string) => ({
      deny: ['denied.example'],
      lookup: (host: string) =>
        host === 'denied.example'
          ? Promise.reject(Object.assign(new Error(code), { code }))
          : Promise.resolve([PUBLIC]),
    });
    expect(await verdict('https://host.example', failing('ENOTFOUND'))).toBe(PUBLIC);
    expect(await verdict('https://host.example', failing('EAI_AGAIN'))).toBe('upstream_unreachable');
  });

  it('are refused at the start when an entry cannot be read', () => {
    expect(() => policy({ allow: ['10.0.0.0/99'] })).toThrow('"10.0.0.0/99"');
    expect(() => policy({ deny: ['*'] })).toThrow('"*"');
  });
});

describe('our own listeners, database and Keycloak', () => {
  const allow = EVERYTHING;

  it('are refused by address and port; the same address at another port is not', async () => {
    const forbidden = () => [{ host: PUBLIC, port: 8080 }];
    expect(await verdict('http://host.example:8080', { forbidden })).toBe('endpoint_forbidden');
    expect(await verdict(`http://[::ffff:${PUBLIC}]:8080`, { forbidden })).toBe('endpoint_forbidden');
    expect(await verdict('http://host.example:8081', { forbidden })).toBe(PUBLIC);
    expect(await verdict('http://8.8.8.8:8080', { forbidden })).toBe('8.8.8.8');
  });

  it('are refused at the default ports', async () => {
    expect(await verdict(`https://${PUBLIC}`, { forbidden: () => [{ host: PUBLIC, port: 443 }] })).toBe(
      'endpoint_forbidden',
    );
    expect(await verdict(`http://${PUBLIC}`, { forbidden: () => [{ host: PUBLIC, port: 80 }] })).toBe(
      'endpoint_forbidden',
    );
  });

  it.each(['127.0.0.1', '0.0.0.0', '::', '::1', '[::1]', '10.9.9.9', 'localhost'])(
    'bound to %s on this host close their port on every address of this host',
    async (host) => {
      const options = {
        ...{
          allow,
          forbidden: () => [{ host, port: 5433 }],
          ownAddresses: () => ['127.0.0.1', '::1', '10.9.9.9'],
        },
        ...answering('127.0.0.1'),
      };
      for (const own of [
        '127.0.0.1',
        '127.9.9.9',
        '[::1]',
        '10.9.9.9',
        '[::ffff:10.9.9.9]',
        '[::ffff:127.0.0.1]',
      ]) {
        expect(await verdict(`http://${own}:5433`, options)).toBe('endpoint_forbidden');
        expect(await verdict(`http://${own}:5434`, options)).not.toBe('endpoint_forbidden');
      }
      expect(await verdict('http://10.0.0.1:5433', options)).toBe('10.0.0.1');
    },
  );

  it('are resolved anew on every look-up', async () => {
    let address = '9.9.9.9';
    const lookup = (host: string) => Promise.resolve([host === 'keycloak.example' ? address : PUBLIC]);
    const changing = policy({ lookup, forbidden: () => [{ host: 'keycloak.example', port: 443 }] });
    expect(await changing.resolveAllowed('host.example', 443)).toHaveLength(1);
    address = PUBLIC;
    await expect(changing.resolveAllowed('host.example', 443)).rejects.toThrow('endpoint_forbidden');
  });

  it('are asked for anew on every look-up, since ports are chosen while we start', async () => {
    const spots: { host: string; port: number }[] = [];
    const changing = policy({ forbidden: () => spots });
    expect(await changing.resolveAllowed('host.example', 443)).toHaveLength(1);
    spots.push({ host: PUBLIC, port: 443 });
    await expect(changing.resolveAllowed('host.example', 443)).rejects.toThrow('endpoint_forbidden');
  });

  it('fail closed at their port while their name cannot be resolved', async () => {
    const lookup = (host: string) =>
      host === 'db'
        ? Promise.reject(Object.assign(new Error('gone'), { code: 'ENOTFOUND' }))
        : Promise.resolve([PUBLIC]);
    const options = { lookup, forbidden: () => [{ host: 'db', port: 5432 }] };
    expect(await verdict('http://host.example:5432', options)).toBe('upstream_unreachable');
    expect(await verdict('http://host.example:5433', options)).toBe(PUBLIC);
  });
});
