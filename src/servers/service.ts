import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Log } from '../lib/log.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { ActiveWork, LocalExecution } from '../identity/service.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { createHostKeyConfirmation, type HostKeyConfirmation } from './host-keys.ts';
import { createServerChanges, type ServerChanges } from './server-changes.ts';
import { createServerData, type ServerData } from './server-data.ts';
import { createServerReads, type ServerReads } from './server-reads.ts';
import { createServerConnections, type ServerConnections } from './server-connections.ts';
import { createServerTests, type ServerTests } from './server-tests.ts';
import {
  createRunnerAccess,
  createServerOpener,
  createTargetBuilder,
  type ServerOpener,
} from './open-server.ts';
import { createServerWriter } from './server-writer.ts';

export type { OpenServer, ServerOpener } from './open-server.ts';
export { createServerData } from './server-data.ts';

export interface ServerServiceDeps {
  database: Database;
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
  /** Which users may run code on the machine of this installation. */
  localExecution: LocalExecution;
  activeWork: ActiveWork;
  log: Log;
  /** Time limit of one test of a server; 1 minute by default. */
  testTimeoutMs?: number;
}

/** The execution servers of users. */
export interface ServerService
  extends
    ServerReads,
    ServerChanges,
    HostKeyConfirmation,
    ServerTests,
    ServerOpener,
    ServerConnections,
    Pick<ServerData, 'removeUser'> {}

export function createServerService(deps: ServerServiceDeps): ServerService {
  const runnerAccess = createRunnerAccess(deps);
  const targetBuilder = createTargetBuilder(deps.keyring, deps.runners);
  const reads = createServerReads({ ...deps, runnerAccess });
  const writer = createServerWriter(deps);
  const all = { ...deps, runnerAccess, targetBuilder, reads, writer };
  return {
    ...reads,
    ...createServerChanges(all),
    ...createHostKeyConfirmation(all),
    ...createServerTests(all),
    ...createServerOpener(all),
    ...createServerConnections(all),
    removeUser: createServerData(deps, writer).removeUser,
  };
}
