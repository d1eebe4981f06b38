import {
  createAdminEventFetcher,
  findDeletedUserId,
  findAffectedUserId,
  type AdminEvent,
} from '../lib/keycloak/admin-events.ts';
import type { Database } from '../lib/postgres/database.ts';
import { createKeycloakEventReader } from '../lib/keycloak/keycloak-event-reader.ts';
import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import type { Log } from '../lib/log.ts';
import type { PoolReader } from './pool-reader.ts';
import { unlinkDeletedRecord } from './vault-index-store.ts';

export interface VaultEventReaderDeps {
  /** The vault client, in the vault realm. */
  keycloak: KeycloakAdmin;
  database: Database;
  reader: Pick<PoolReader, 'invalidateRecord'>;
  log: Log;
}

/**
 * Returns one poll of the admin events of vault records. The app's own writes are among the events and only cause a few
 * extra reads. A poll throws when Keycloak or the database is unavailable; no event is lost by that.
 */
export function createVaultEventReader({
  keycloak,
  database,
  reader,
  log,
}: VaultEventReaderDeps): () => Promise<void> {
  async function handleDeletedRecord(recordId: string): Promise<void> {
    const owner = await unlinkDeletedRecord(database, recordId);
    if (owner === undefined) return;
    log.warn({ event: 'vault_record_deleted', owner, vault_id: recordId }, 'a vault record was deleted');
  }

  return createKeycloakEventReader<AdminEvent>({
    database,
    // With one realm, the identity feature reads the same events with another cursor.
    cursorName: `${keycloak.realm} vault`,
    fetchPage: createAdminEventFetcher(keycloak, ['USER']),
    async handle(events) {
      for (const id of recordIds(events, findDeletedUserId)) await handleDeletedRecord(id);
      for (const id of recordIds(events, findAffectedUserId)) reader.invalidateRecord(id);
      return [];
    },
  });
}

function recordIds(
  events: readonly AdminEvent[],
  idOf: (event: AdminEvent) => string | undefined,
): Set<string> {
  return new Set(events.map(idOf).filter((id) => id !== undefined));
}
