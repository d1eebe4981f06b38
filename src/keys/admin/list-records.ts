import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import { keycloakUnavailable } from '../../lib/errors.ts';
import { findKeycloakStatus, type KeycloakAdmin } from '../../lib/keycloak/keycloak-admin.ts';
import { parseOwner, userOwner, type Owner } from '../../lib/owner.ts';
import { readAttributes, toVaultRecord, type VaultRecord } from '../vault.ts';

const PAGE_SIZE = 100;

/**
 * Lists every user of a realm once, with all attributes. Pages overlap by one user. Where a page does not hold a known
 * user, users before it were deleted meanwhile, and the listing goes back one page so that no user is skipped. Users who
 * are created meanwhile may be missed.
 * @param maxUsers ends the listing with the page that reaches this number.
 * @throws AppError `keycloak_unavailable`, also when the client may not list users.
 */
export async function* listRealmUsers(
  keycloak: KeycloakAdmin,
  maxUsers = Number.POSITIVE_INFINITY,
): AsyncGenerator<UserRepresentation> {
  const seen = new Set<string>();
  let first = 0;
  for (;;) {
    const page = await readPage(keycloak, first);
    const isOverlapping = first === 0 || page.some(({ id }) => seen.has(id ?? ''));
    if (!isOverlapping) {
      first = Math.max(0, first - PAGE_SIZE);
      continue;
    }
    for (const user of page) {
      if (user.id === undefined || seen.has(user.id)) continue;
      seen.add(user.id);
      yield user;
    }
    if (page.length < PAGE_SIZE || seen.size >= maxUsers) return;
    first += PAGE_SIZE - 1;
  }
}

async function readPage(keycloak: KeycloakAdmin, first: number): Promise<UserRepresentation[]> {
  try {
    return await keycloak.call((client) =>
      client.users.find({ first, max: PAGE_SIZE, briefRepresentation: false }),
    );
  } catch (error) {
    const status = findKeycloakStatus(error);
    if (status === undefined) throw error;
    const detail = `Keycloak responded with status ${status} to a request for the users of realm "${keycloak.realm}".`;
    throw keycloakUnavailable(error, detail);
  }
}

export interface ListedRecord extends Pick<VaultRecord, 'id' | 'values'> {
  /** Undefined when the record names none; the app refuses such a record. */
  owner: Owner | undefined;
  /** The owner's user name, for administrators; may be empty. */
  ownerName: string;
}

/**
 * Lists every vault record; with one realm for users and keys, every user who has stored keys.
 * @param maxUsers ends the listing with the page that reaches this number.
 */
export async function* listVaultRecords(
  keycloak: KeycloakAdmin,
  recordIsUser: boolean,
  maxUsers?: number,
): AsyncGenerator<ListedRecord> {
  for await (const user of listRealmUsers(keycloak, maxUsers)) {
    const { id, values } = toVaultRecord(user);
    const username = user.username ?? '';
    if (recordIsUser) {
      if (values.size > 0) yield { id, values, owner: userOwner(id), ownerName: username };
      continue;
    }
    const attributes = readAttributes(user);
    const owner = findOwner(attributes['owner']?.[0]);
    const isRecord = owner !== undefined || values.size > 0 || username.startsWith('user.');
    if (isRecord) yield { id, values, owner, ownerName: attributes['owner_name']?.[0] ?? '' };
  }
}

/** Organizations have no vault records yet: a record that names one counts as a record without an owner. */
function findOwner(text = ''): Owner | undefined {
  const parsed = parseOwner(text);
  return parsed?.kind === 'user' && !/\s/.test(parsed.id) ? parsed.owner : undefined;
}
