import { z } from 'zod';
import type { KeycloakEventReaderDeps } from './keycloak-event-reader.ts';
import type { KeycloakAdmin } from './keycloak-admin.ts';

/** The members of an admin event that are used. The client's type lacks the id. */
const AdminEvent = z.object({
  id: z.string(),
  time: z.number(),
  operationType: z.string().optional(),
  resourcePath: z.string().optional(),
});
export type AdminEvent = z.output<typeof AdminEvent>;

/**
 * Fetches pages of a realm's admin events. Needs the role `view-events`.
 * @param resourceTypes Keycloak's names, e.g. `USER`.
 */
export function createAdminEventFetcher(
  keycloakAdmin: KeycloakAdmin,
  resourceTypes: readonly string[],
): KeycloakEventReaderDeps<AdminEvent>['fetchPage'] {
  return async ({ dateFromMs, first, max }) => {
    const query = {
      realm: keycloakAdmin.realm,
      first,
      max,
      // Keycloak responds 400 to the Date that the type demands; it reads epoch milliseconds.
      dateFrom: dateFromMs as unknown as Date,
      resourceTypes: resourceTypes as unknown as string,
    };
    const events = await keycloakAdmin.call((client) => client.realms.findAdminEvents(query));
    return z.array(AdminEvent).parse(events);
  };
}

/** The id of the user that an event concerns: the user itself or a resource below it. */
export function findAffectedUserId({ resourcePath }: AdminEvent): string | undefined {
  const [kind, id] = (resourcePath ?? '').split('/');
  return kind === 'users' && id !== undefined && id !== '' ? id : undefined;
}

/** The id of a deleted user; undefined for deleted resources below a user. */
export function findDeletedUserId(event: AdminEvent): string | undefined {
  const id = findAffectedUserId(event);
  const isUser = event.resourcePath === `users/${String(id)}`;
  return event.operationType === 'DELETE' && isUser ? id : undefined;
}
