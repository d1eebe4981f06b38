import { randomBytes, randomUUID } from 'node:crypto';
import { Writable } from 'node:stream';
import type { Principal } from '../../src/http/principal.ts';
import { createOwnerLock } from '../../src/keys/owner-lock.ts';
import { createPoolReader, type PoolReader } from '../../src/keys/pool-reader.ts';
import { createKeyOperations, type KeyOperations } from '../../src/keys/service.ts';
import { OWNERS_CHANNEL } from '../../src/keys/vault-index-store.ts';
import { createVault } from '../../src/keys/vault.ts';
import { createDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createDialer } from '../../src/lib/net/dialer.ts';
import { createKeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';
import { createLoopGuard } from '../../src/lib/net/loop-guard.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createLog } from '../../src/lib/log.ts';
import {
  createNotificationListener,
  type NotificationListener,
} from '../../src/lib/postgres/notification-listener.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import type { Tier } from '../../src/config/tiers.ts';
import { evidence } from '../support/evidence.ts';

/** Options of one process of the app. Plain data, so that they can be passed to a child process. */
export interface InstanceOptions {
  databaseUrl: string;
  keycloakUrl: string;
  realm: string;
  client: { id: string; secret: string };
  encryptionKeys: string[];
  recordIsUser?: boolean;
  /** Provider id -> address of its test upstream. */
  upstreams?: Record<string, string>;
  /** Timeout of one call to Keycloak. */
  keycloakTimeoutMs?: number;
  /** Total time of a write, including the wait for the lock. */
  lockTimeoutMs?: number;
  /** Database URL of the LISTEN connection, e.g. of a proxy; `databaseUrl` by default. */
  notificationsUrl?: string;
  /** A channel other than `OWNERS_CHANNEL`, so that no notification of another process is received. */
  notificationsChannel?: string;
}

/** The key service as in one process of the app, with its own connections. */
export interface Instance {
  keys: KeyOperations;
  reader: PoolReader;
  /** The pool cache is disabled until it is started. */
  notifications: NotificationListener;
  database: Database;
  /** Returns all log lines. */
  logged(): string;
  close(): Promise<void>;
}

/** An address that is always refused: a cloud's metadata service. */
export const FORBIDDEN_ENDPOINT = 'http://169.254.169.254/v1';

export function createInstance(options: InstanceOptions): Instance {
  const lines: string[] = [];
  const log = createLog(
    'trace',
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        lines.push(chunk.toString());
        evidence.recordLog(chunk.toString());
        done();
      },
    }),
  );
  for (const key of options.encryptionKeys) evidence.registerSecret('encryption key', key);
  const open = (max: number) =>
    createDatabase({ url: options.databaseUrl, max, applicationName: 'keys-test', log });
  const [database, lockDatabase] = [open(6), open(4)];
  const keycloak = createKeycloakAdmin({
    baseUrl: options.keycloakUrl,
    realm: options.realm,
    clientId: options.client.id,
    clientSecret: options.client.secret,
    ...(options.keycloakTimeoutMs === undefined ? {} : { timeoutMs: options.keycloakTimeoutMs }),
  });
  const dialer = createDialer({
    mode: 'deployed',
    allow: undefined,
    deny: [],
    forbidden: () => [],
    // The host names of the tests do not exist; all of them resolve to this public address.
    lookup: () => Promise.resolve(['93.184.215.14']),
    connectTimeoutMs: 1_000,
  });
  const upstreams = { overrides: options.upstreams ?? {} };
  const vault = createVault({ keycloak, recordIsUser: options.recordIsUser ?? false, log });
  const notificationsUrl = options.notificationsUrl ?? options.databaseUrl;
  const channel = options.notificationsChannel ?? OWNERS_CHANNEL;
  const notifications = createNotificationListener({ url: notificationsUrl, log });
  const reader = createPoolReader({
    ...{ database, vault, providers: PROVIDERS, log },
    notifications: {
      ...notifications,
      onNotification: (_channel, handler) => {
        notifications.onNotification(channel, handler);
      },
    },
  });
  const keys = createKeyOperations({
    database,
    reader,
    lock: createOwnerLock({ database: lockDatabase, slots: 4, timeoutMs: options.lockTimeoutMs ?? 20_000 }),
    vault,
    keyring: createKeyring(options.encryptionKeys),
    providers: PROVIDERS,
    upstreams,
    dialer,
    loopGuard: createLoopGuard('loop guard of the tests'),
    log,
  });
  return {
    keys,
    reader,
    notifications,
    database,
    logged: () => lines.join(''),
    close: async () => {
      await notifications.stop();
      await Promise.all([database.close(), lockDatabase.close(), dialer.close()]);
    },
  };
}

/** A signed-in user, as the key service receives it. */
export function createPrincipal(
  id: string = randomUUID(),
  tier: Tier = 'starter',
  username = `user-${id}`,
): Principal {
  return {
    user: { id, username, email: `${username}@example.test`, name: null, tier },
    credential: 'session',
    scopes: new Set(),
    token: null,
    sessionId: 'session',
    keycloakSessionId: null,
    authenticatedAtMs: Date.now(),
  };
}

export function randomEncryptionKey(): string {
  return randomBytes(32).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
}

/** A random key in OpenAI's format. */
export function randomKey(prefix = 'sk-'): string {
  const key = prefix + randomBytes(18).toString('hex');
  evidence.registerSecret('provider key', key);
  return key;
}
