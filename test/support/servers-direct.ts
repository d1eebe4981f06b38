import pg from 'pg';
import { createActiveWork } from '../../src/identity/active-work.ts';
import { createDatabase } from '../../src/lib/postgres/database.ts';
import { createDialer } from '../../src/lib/net/dialer.ts';
import { createKeyring, type Keyring } from '../../src/lib/crypto/keyring.ts';
import { createLog } from '../../src/lib/log.ts';
import { createRunners } from '../../src/runners/index.ts';
import type { Limits } from '../../src/runners/runner.ts';
import {
  createServerService,
  type OpenServer,
  type ServerService,
  type ServerServiceDeps,
} from '../../src/servers/service.ts';
import type { TestApp } from './app.ts';

/** Access to the servers of a running app without HTTP: a service, the rows without row-level security, the keyring. */
export interface DirectServers {
  service: ServerService;
  /** Opens a server for a run without optional limits. */
  openForRun(userId: string, ref: string): Promise<OpenServer>;
  keyring: Keyring;
  /** Runs SQL as the owner of the schema, like a database administrator. */
  sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>;
  /** One server's stored configuration. */
  storedConfig(id: string): Promise<Record<string, unknown>>;
  /** Server ids that were passed to runners' `release`, in order. */
  released: readonly string[];
  close(): Promise<void>;
}

const NO_OPTIONAL_LIMITS: Limits = {
  ...{ timeoutMs: 60_000, maxOutputBytes: 1_000_000 },
  ...{ memoryBytes: null, cpus: null, pids: null, network: null },
};

export async function openServers(
  { config, databaseUrl, ownerDatabaseUrl }: TestApp,
  options: Pick<ServerServiceDeps, 'testTimeoutMs'> = {},
): Promise<DirectServers> {
  const log = createLog('silent');
  const database = createDatabase({ url: databaseUrl, max: 4, applicationName: 'test', log });
  const dialer = createDialer({
    mode: 'local',
    allow: config.egress.allow,
    deny: config.egress.deny,
    forbidden: () => [],
    connectTimeoutMs: config.timeouts.connectMs,
  });
  const released: string[] = [];
  const runners = new Map(
    [...createRunners({ dialer, log })].map(([type, runner]) => [
      type,
      {
        ...runner,
        release(serverId: string) {
          released.push(serverId);
          return runner.release(serverId);
        },
      },
    ]),
  );
  const keyring = createKeyring(config.encryptionKeys);
  const owner = new pg.Client({ connectionString: ownerDatabaseUrl });
  await owner.connect();
  const sql: DirectServers['sql'] = async (text, values) =>
    (await owner.query<Record<string, unknown>>(text, values)).rows;
  const service = createServerService({
    ...{ database, keyring, runners, log, ...options },
    localExecution: { isOn: false, isAllowed: () => Promise.resolve(false) },
    activeWork: createActiveWork(),
  });
  return {
    service,
    openForRun: (userId, ref) => service.openForRun(userId, ref, NO_OPTIONAL_LIMITS),
    keyring,
    sql,
    released,
    async storedConfig(id) {
      const rows = await sql('SELECT connection_config FROM user_execution_servers WHERE id = $1', [id]);
      return rows[0]?.['connection_config'] as Record<string, unknown>;
    },
    async close() {
      await Promise.all([...runners.values()].map((runner) => runner.close()));
      await Promise.all([dialer.close(), database.close(), owner.end()]);
    },
  };
}
