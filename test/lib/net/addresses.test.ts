import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  coversAddress,
  coversName,
  isLoopbackHost,
  parseIpAddress,
  parseEgressRule,
  classifyAddress,
  type IpAddress,
  type AddressClass,
} from '../../../src/lib/net/addresses.ts';

const NONE: ReadonlySet<string> = new Set<string>();
const classify = (text: string, own = NONE): AddressClass => classifyAddress(parseIpAddress(text), own);

const EXPECTED: Record<AddressClass, string[]> = {
  never: [
    ...['169.254.169.254', 'fd00:ec2::254', '100.100.100.200', '168.63.129.16', 'fd20:ce::254'],
    ...['0.0.0.0', '0.1.2.3', '::', '169.254.0.1', 'fe80::1', 'fe80::1%eth0', 'febf::1'],
    ...['224.0.0.1', '239.255.255.255', 'ff02::1', '255.255.255.255', '240.0.0.1', '192.0.0.8', '192.0.2.1'],
    ...['198.18.0.1', '198.51.100.1', '203.0.113.9', '192.88.99.1', '192.175.48.1', '192.52.193.1'],
    ...[
      '2001:db8::1',
      '3fff::1',
      '100::1',
      'fec0::1',
      '2001:2::1',
      '2001:20::1',
      '5f00::1',
      '4000::1',
      '200::1',
    ],
    // The embedded form of another translation (SIIT), and the local-use NAT64 prefix in both layouts.
    ...['::ffff:0:8.8.8.8', '64:ff9b:1::8.8.8.8', '64:ff9b:1:808:8:800::'],
    // IPv6 forms that embed addresses of the list above.
    ...['::ffff:169.254.169.254', '::ffff:a9fe:a9fe', '::169.254.169.254', '64:ff9b::169.254.169.254'],
    ...['2002:a9fe:a9fe::1', '2002:a83f:8110::', '64:ff9b::6464:64c8', '::0.0.0.5', '::ffff:0.0.0.0'],
    // Teredo: the server 8.8.8.8, the client ~169.254.169.254; and vice versa.
    ...['2001:0:808:808:0:0:5601:5601', '2001:0:a9fe:a9fe:0:0:f7f7:f7f7'],
    ...[
      '',
      'localhost',
      '127.1',
      '0177.0.0.1',
      '2130706433',
      '0x7f.0.0.1',
      '127.0.0.1.',
      '[::1]',
      '10.0.0.0/8',
    ],
  ],
  private: [
    ...['127.0.0.1', '127.255.255.254', '::1', '10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1'],
    ...['100.64.0.1', '100.127.255.255', 'fc00::1', 'fd12:3456::1'],
    ...[
      '::ffff:127.0.0.1',
      '::ffff:7f00:1',
      '::10.0.0.1',
      '64:ff9b::10.0.0.1',
      '2002:7f00:1::',
      '2002:c0a8:101::1',
    ],
    ...['2001:0:808:808:0:0:f5ff:fffe', '2001:0:a00:1:0:0:f7f7:f7f7'],
  ],
  public: [
    ...[
      '8.8.8.8',
      '1.1.1.1',
      '172.32.0.1',
      '100.128.0.1',
      '168.63.129.15',
      '2606:4700::1111',
      '2a00:1450::1',
    ],
    ...['::ffff:8.8.8.8', '64:ff9b::8.8.8.8', '2002:808:808::1', '2001:0:808:808:0:0:f7f7:f7f7'],
  ],
};

describe('classifyAddress', () => {
  for (const [expected, texts] of Object.entries(EXPECTED)) {
    it.each(texts)(`classifies "%s" as ${expected}`, (text) => {
      expect(classify(text)).toBe(expected);
    });
  }

  it("classifies addresses of this host's interfaces as private, also when they are embedded", () => {
    const own = new Set(['8.8.8.8', '2606:4700::1111', '2002:101:101::1']);
    for (const text of ['8.8.8.8', '::ffff:8.8.8.8', '2606:4700:0::1111', '2002:101:101::1']) {
      expect(classify(text, own)).toBe('private');
    }
    expect(classify('8.8.4.4', own)).toBe('public');
  });

  it('classifies an IPv6 address by the IPv4 address that it embeds', () => {
    const bytes = fc.tuple(
      ...([0, 1, 2, 3].map(() => fc.nat(255)) as [fc.Arbitrary<number>, ...fc.Arbitrary<number>[]]),
    );
    const special = fc
      .constantFrom([10], [127], [192, 168], [172, 16], [100, 64], [169, 254], [0], [224], [255, 255])
      .chain((head) => bytes.map((rest) => [...head, ...rest].slice(0, 4)));
    fc.assert(
      fc.property(fc.oneof(bytes, special), (v4) => {
        const expected = classify(v4.join('.'));
        for (const form of embeddingForms(v4)) expect([form, classify(form)]).toEqual([form, expected]);
      }),
      { numRuns: 2_000 },
    );
  });

  it('never classifies an address outside 2000::/3 without an embedded IPv4 address as public', () => {
    const parts = fc.array(fc.nat(0xffff), { minLength: 8, maxLength: 8 });
    fc.assert(
      fc.property(parts, (words) => {
        const head = (words[0] ?? 0) >> 13;
        fc.pre(head !== 1 && words[0] !== 0x64 && words.slice(0, 5).some((word) => word !== 0));
        expect(classify(words.map((word) => word.toString(16)).join(':'))).not.toBe('public');
      }),
    );
  });
});

/** Mapped, compatible, NAT64, 6to4, and Teredo with a public server. */
function embeddingForms(v4: readonly number[]): string[] {
  const [a = 0, b = 0, c = 0, d = 0] = v4;
  const hex = (high: number, low: number) => ((high << 8) | low).toString(16);
  const [high, low] = [hex(a, b), hex(c, d)];
  const inverted = `${hex(a ^ 255, b ^ 255)}:${hex(c ^ 255, d ^ 255)}`;
  const isOnlyTail = a === 0 && b === 0 && c === 0 && d <= 1;
  return [
    `::ffff:${high}:${low}`,
    `::FFFF:${v4.join('.')}`,
    `0:0:0:0:0:ffff:${high}:${low}`,
    ...(isOnlyTail ? [] : [`::${high}:${low}`]),
    `64:ff9b::${v4.join('.')}`,
    `2002:${high}:${low}::1`,
    `2001:0:808:808:0:0:${inverted}`,
  ];
}

describe('egress rules', () => {
  const address = (text: string): IpAddress => {
    const parsed = parseIpAddress(text);
    if (parsed === undefined) throw new Error(`${text} is no address`);
    return parsed;
  };

  it.each([
    ['10.0.0.0/8', '10.1.2.3', 1, true],
    ['10.0.0.0/8', '11.1.2.3', 1, false],
    ['10.1.2.3/8', '10.200.0.1', 65_535, true],
    ['192.168.1.5', '192.168.1.5', 443, true],
    ['192.168.1.5', '192.168.1.6', 443, false],
    ['192.168.1.5:11434', '192.168.1.5', 11_434, true],
    ['192.168.1.5:11434', '192.168.1.5', 11_435, false],
    ['10.0.0.0/8:8000-8010', '10.0.0.1', 8_000, true],
    ['10.0.0.0/8:8000-8010', '10.0.0.1', 8_010, true],
    ['10.0.0.0/8:8000-8010', '10.0.0.1', 8_011, false],
    ['10.0.0.0/8:8000-8010', '10.0.0.1', 7_999, false],
    ['::1', '::1', 80, true],
    ['::1', '::2', 80, false],
    ['fd00::/8', 'fd12::1', 80, true],
    ['[::1]', '::1', 80, true],
    ['[::1]:11434', '::1', 11_434, true],
    ['[::1]:11434', '::1', 11_435, false],
    ['[fd00::]/8:443', 'fdff::1', 443, true],
    ['[fd00::/8]:443', 'fdff::1', 444, false],
    ['fd00::1:8080', 'fd00::1:8080', 1, true],
    ['0.0.0.0/0', '::1', 80, false],
    ['::/0', '127.0.0.1', 80, false],
  ])('%s against %s port %i: %s', (rule, text, port, expected) => {
    expect(coversAddress(parseEgressRule(rule), address(text), port)).toBe(expected);
  });

  it.each([
    ['ollama.lan', 'ollama.lan', 1, true],
    ['ollama.lan', 'OLLAMA.LAN.', 1, true],
    ['Ollama.lan.:11434', 'ollama.lan', 11_434, true],
    ['ollama.lan:11434', 'ollama.lan', 11_435, false],
    ['ollama.lan', 'evil.ollama.lan', 1, false],
    ['my_service', 'my_service', 80, true],
  ])('%s against the name %s port %i: %s', (rule, name, port, expected) => {
    expect(coversName(parseEgressRule(rule), name, port)).toBe(expected);
  });

  it.each([
    ...[
      '',
      ' ',
      '*',
      '*.lan',
      '10.0.0.0/33',
      'fd00::/129',
      '10.0.0.0/',
      '10.0.0.0/8/8',
      '10.0.0.0/-1',
      'lan/8',
    ],
    ...['127.1', '0x7f.0.0.1', '2130706433', '10.0.0.256', 'host.123', '::ffff:10.0.0.1', 'fe80::1%eth0'],
    ...[
      'host:',
      'host:0',
      'host:65536',
      'host:90-80',
      'host:80-',
      'host:http',
      '10.0.0.1:80:90',
      '[::1',
      '[::1]80',
    ],
    ...['http://host', 'user@host', 'host/path', 'ho st', '[]', '[lan]:80x'],
  ])('refuse "%s" with an error that names it', (text) => {
    expect(() => parseEgressRule(text)).toThrow(`"${text}"`);
  });
});

describe('a loopback host', () => {
  it.each(['localhost', '127.0.0.1', '127.255.0.9', '::1', '[::1]', '[0:0:0:0:0:0:0:1]'])('is %s', (host) => {
    expect(isLoopbackHost(host)).toBe(true);
  });

  it.each([
    ...['', '0.0.0.0', '10.0.0.1', '128.0.0.1', '::', '[::2]', '[127.0.0.1]', '[::1', '::1%lo'],
    ...['localhost.example', 'mylocalhost', '127.0.0.1.example', '127.1', '127.0.0.999', '2130706433'],
  ])('is not %j', (host) => {
    expect(isLoopbackHost(host)).toBe(false);
  });
});
