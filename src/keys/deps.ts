import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Log } from '../lib/log.ts';
import type { RateLimit } from '../lib/rate-limit.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { OperatorUpstreams } from '../providers/address.ts';
import type { Provider } from '../providers/provider.ts';
import type { CallProvider } from './call-provider.ts';
import type { CheckEndpoint } from './key-input.ts';
import type { OwnerLock } from './owner-lock.ts';
import type { PoolReader } from './pool-reader.ts';
import type { Vault } from './vault.ts';

/** What the use cases need. */
export interface KeyDeps {
  database: Database;
  vault: Vault;
  /** One writer per owner. */
  lock: OwnerLock;
  reader: PoolReader;
  keyring: Keyring;
  /** The providers available in this mode, in display order. */
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  checkEndpoint: CheckEndpoint;
  callProvider: CallProvider;
  /** Of tests and their upstream calls: `beginKeyTest` and `callProvider` count. */
  keyTestLimit: RateLimit;
  log: Log;
}
