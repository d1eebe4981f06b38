import type { Database } from '../lib/postgres/database.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Log } from '../lib/log.ts';
import type { OperatorUpstreams } from '../providers/address.ts';
import type { Provider } from '../providers/provider.ts';
import { createKeyChanges, type KeyChanges } from './key-changes.ts';
import type { KeyReader } from './key-reader.ts';
import { createKeyReads, type KeyReads } from './key-reads.ts';
import type { KeyTester } from './key-tester.ts';
import { createKeyTests, type KeyTests } from './key-tests.ts';
import { createKeyUse, type KeyUse } from './key-use.ts';
import type { OwnerLock } from './owner-lock.ts';
import { createEndpointCheck } from './provider-lookup.ts';
import type { Vault } from './vault.ts';

export type { ProviderKey } from './key-reads.ts';

export interface KeyServiceDeps {
  database: Database;
  reader: KeyReader;
  lock: OwnerLock;
  vault: Vault;
  keyring: Keyring;
  /** The providers available in this mode, in display order. */
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  dialer: { checkEndpoint(text: string): Promise<URL> };
  tester: KeyTester;
  log: Log;
}

/** Provider keys of users. Decrypted keys are never cached. */
export interface KeyService extends KeyReads, KeyChanges, KeyTests, KeyUse {}

export function createKeyService(deps: KeyServiceDeps): KeyService {
  const checkEndpoint = createEndpointCheck(deps);
  return {
    ...createKeyReads(deps),
    ...createKeyChanges({ ...deps, checkEndpoint }),
    ...createKeyTests(deps),
    ...createKeyUse(deps),
  };
}
