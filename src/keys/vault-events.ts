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
import type { KeyReader } from './key-reader.ts';
import { removeDeletedRecord } from './vault-index-store.ts';

export interface VaultEventReaderDeps {
  /** The vault client, in the realm of the records. */
  keycloak: KeycloakAdmin;
  database: Database;
  reader: Pick<KeyReader, 'invalidateRecord'>;
  log: Log;
}

/**
 * Builds the poll of what administrators do to vault records. Our own writes are among the events; what they
 * make this process read again is little. It throws when Keycloak or the database is away; nothing is lost by that.
 */
export function createVaultEventReader({
  keycloak,
  database,
  reader,
  log,
}: VaultEventReaderDeps): () => Promise<void> {
  async function handleDeletedRecord(recordId: string): Promise<void> {
    const owner = await removeDeletedRecord(database, recordId);
    if (owner === undefined) return;
    log.warn({ event: 'vault_record_deleted', owner, vault_id: recordId }, 'a vault record was deleted');
  }

  return createKeycloakEventReader<AdminEvent>({
    database,
    // The realm may be the people's too, whose events are read for other ends at another pace.
    cursorName: `${keycloak.realm} vault`,
    fetchPage: createAdminEventFetcher(keycloak, ['USER']),
    async handle(events) {
      for (const id of recordIds(events, findDeletedUserId)) await handleDeletedRecord(id);
      for (const id of recordIds(events, findAffectedUserId)) reader.invalidateRecord(id);
    },
  });
}

function recordIds(
  events: readonly AdminEvent[],
  idOf: (event: AdminEvent) => string | undefined,
): Set<string> {
  return new Set(events.map(idOf).filter((id) => id !== undefined));
}
