import type { ParsedKey } from 'ssh2';
import { rejectOnAbort } from '../async/reject-on-abort.ts';
import type { SshHop } from './config.ts';
import { parsePrivateKey } from './private-key.ts';

/** The private key of one connection. It may be shared with other connections to the same server. */
export interface KeyLease {
  /** @throws PrivateKeyError, PrivateKeyBusyError or the reason of `signal`. */
  read(signal: AbortSignal): Promise<ParsedKey>;
  /** Call when the connection has closed. Further calls do nothing. */
  release(): void;
}

export interface DecryptedKeys {
  lease(hop: SshHop): KeyLease;
}

interface DecryptedKey {
  leases: number;
  controller: AbortController;
  parsed: Promise<ParsedKey> | undefined;
}

/**
 * Keeps the decrypted private key of a server while connections to it are open: a further connection, also after a lost
 * one, does not derive the key from its passphrase again.
 */
export function createDecryptedKeys(): DecryptedKeys {
  const keys = new Map<string, DecryptedKey>();

  function parse(item: DecryptedKey, { owner, config }: SshHop): Promise<ParsedKey> {
    const parsed = parsePrivateKey(config.private_key ?? '', config.passphrase, {
      ...{ owner, signal: item.controller.signal },
    });
    // The next connection tries again.
    parsed.catch(() => (item.parsed = undefined));
    return parsed;
  }

  return {
    lease(hop) {
      const name = JSON.stringify([hop.owner, hop.serverId, hop.version]);
      const item = keys.get(name) ?? { leases: 0, controller: new AbortController(), parsed: undefined };
      keys.set(name, item);
      item.leases += 1;
      let isReleased = false;
      return {
        read: (signal) => rejectOnAbort((item.parsed ??= parse(item, hop)), signal),
        release() {
          if (isReleased) return;
          isReleased = true;
          item.leases -= 1;
          if (item.leases > 0) return;
          item.controller.abort();
          keys.delete(name);
        },
      };
    },
  };
}
