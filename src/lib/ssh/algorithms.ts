import type { ConnectConfig } from 'ssh2';

/**
 * The algorithms of ssh2 that are safe: no SHA-1, no CBC, no compression (a few bytes could expand to gigabytes), and no
 * group exchange, in which the server chooses the prime: Node tests it on the main thread, which takes 5 s for 4096 bits
 * and has no limit.
 */
export const ALGORITHMS = {
  kex: [
    'curve25519-sha256',
    'curve25519-sha256@libssh.org',
    'ecdh-sha2-nistp256',
    'ecdh-sha2-nistp384',
    'ecdh-sha2-nistp521',
    'diffie-hellman-group14-sha256',
    'diffie-hellman-group16-sha512',
    'diffie-hellman-group15-sha512',
    'diffie-hellman-group17-sha512',
    'diffie-hellman-group18-sha512',
  ],
  cipher: [
    'aes128-gcm@openssh.com',
    'aes256-gcm@openssh.com',
    'chacha20-poly1305@openssh.com',
    'aes128-ctr',
    'aes192-ctr',
    'aes256-ctr',
  ],
  hmac: ['hmac-sha2-256-etm@openssh.com', 'hmac-sha2-512-etm@openssh.com', 'hmac-sha2-256', 'hmac-sha2-512'],
  compress: ['none'],
} satisfies ConnectConfig['algorithms'];

/** A list of a server's algorithms, by the name that ssh2's debug texts give it. */
interface AlgorithmList {
  /** For users. */
  kind: string;
  /** What to change in sshd_config. */
  advice: string;
  /** Names of OpenSSH and others that are not accepted here and may be named to users. */
  known: readonly string[];
}

const CIPHERS: AlgorithmList = {
  kind: 'ciphers',
  advice: 'Add aes128-gcm@openssh.com, chacha20-poly1305@openssh.com or aes256-ctr to Ciphers',
  known: [
    ...['aes128-cbc', 'aes192-cbc', 'aes256-cbc', '3des-cbc', 'blowfish-cbc', 'cast128-cbc'],
    ...['arcfour', 'arcfour128', 'arcfour256'],
  ],
};
const MACS: AlgorithmList = {
  kind: 'MACs',
  advice: 'Add hmac-sha2-256-etm@openssh.com or hmac-sha2-256 to MACs',
  known: [
    ...['umac-64@openssh.com', 'umac-128@openssh.com', 'umac-64-etm@openssh.com', 'umac-128-etm@openssh.com'],
    ...['hmac-sha1', 'hmac-sha1-96', 'hmac-sha1-etm@openssh.com', 'hmac-sha1-96-etm@openssh.com'],
    ...['hmac-md5', 'hmac-md5-96', 'hmac-md5-etm@openssh.com', 'hmac-ripemd160', 'hmac-sha2-256-96'],
  ],
};
const COMPRESSION: AlgorithmList = {
  kind: 'methods of compression',
  advice: 'Set Compression to no',
  known: ['zlib', 'zlib@openssh.com'],
};

const LISTS: Readonly<Record<string, AlgorithmList>> = {
  'KEX method': {
    kind: 'key exchanges',
    advice: 'Add curve25519-sha256, ecdh-sha2-nistp256 or diffie-hellman-group14-sha256 to KexAlgorithms',
    known: [
      ...['sntrup761x25519-sha512', 'sntrup761x25519-sha512@openssh.com', 'mlkem768x25519-sha256'],
      ...['mlkem768nistp256-sha256', 'mlkem1024nistp384-sha384', 'curve448-sha512'],
      'diffie-hellman-group-exchange-sha256',
      ...['diffie-hellman-group1-sha1', 'diffie-hellman-group14-sha1', 'diffie-hellman-group-exchange-sha1'],
    ],
  },
  'Host key format': {
    kind: 'host key algorithms',
    advice:
      'Add a HostKey of the type ssh-ed25519, ecdsa-sha2-nistp256 or ssh-rsa, and allow it with SHA-2 in HostKeyAlgorithms',
    known: [
      ...[
        'ssh-rsa',
        'ssh-dss',
        'sk-ssh-ed25519@openssh.com',
        'sk-ecdsa-sha2-nistp256@openssh.com',
        'ssh-ed448',
      ],
      ...['ssh-ed25519-cert-v01@openssh.com', 'ecdsa-sha2-nistp256-cert-v01@openssh.com'],
      ...[
        'ssh-rsa-cert-v01@openssh.com',
        'rsa-sha2-256-cert-v01@openssh.com',
        'rsa-sha2-512-cert-v01@openssh.com',
      ],
    ],
  },
  'C->S cipher': CIPHERS,
  'S->C cipher': CIPHERS,
  'C->S MAC': MACS,
  'S->C MAC': MACS,
  'C->S compression': COMPRESSION,
  'S->C compression': COMPRESSION,
};

const OFFER = /^Handshake: \(remote\) ([A-Za-z>\- ]+): (.*)$/s;
const MISMATCH = 'Handshake failed: no matching ';

/** Records what a server offers, to explain why nothing is in common. */
export interface AlgorithmOffers {
  /** For ssh2's `debug`. */
  record(text: string): void;
  /** What the server lacks, for users; undefined for another error. @param error of ssh2 */
  findMismatch(error: unknown): string | undefined;
}

export function createAlgorithmOffers(): AlgorithmOffers {
  // ssh2 compares one list after the other, and ends at the first without a common name.
  let last: { list: AlgorithmList; names: string[] } | undefined;
  return {
    record(text) {
      const [, name = '', names = ''] = OFFER.exec(text) ?? [];
      const list = LISTS[name];
      if (list !== undefined) last = { list, names: names.split(',') };
    },
    findMismatch(error) {
      const isMismatch = error instanceof Error && error.message.startsWith(MISMATCH);
      return isMismatch && last !== undefined ? describeMismatch(last.list, last.names) : undefined;
    },
  };
}

function describeMismatch({ kind, advice, known }: AlgorithmList, names: readonly string[]): string {
  const shown = known.filter((name) => names.includes(name)).join(', ');
  return (
    `The server offers no ${kind} that are accepted here, only ${shown === '' ? 'others' : shown}. They are not known to ` +
    `this client or not safe. ${advice} in its sshd_config.`
  );
}
