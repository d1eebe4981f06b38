import { z } from 'zod';
import type { KeycloakEventReaderDeps } from './keycloak-event-reader.ts';
import type { KeycloakAdmin } from './keycloak-admin.ts';

/** An admin event, as far as it is read; the client's type lacks the id. */
const AdminEvent = z.object({
  id: z.string(),
  time: z.number(),
  operationType: z.string().optional(),
  resourcePath: z.string().optional(),
});
export type AdminEvent = z.output<typeof AdminEvent>;

/**
 * Fetches pages of a realm's admin events, for `createEventReader`. Needs the role `view-events`.
 * @param resourceTypes e.g. `USER`; Keycloak's names.
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
      // The typed Date is answered with a 400: epoch milliseconds are what the server reads.
      dateFrom: dateFromMs as unknown as Date,
      resourceTypes: resourceTypes as unknown as string,
    };
    const events = await keycloakAdmin.call((client) => client.realms.findAdminEvents(query));
    return z.array(AdminEvent).parse(events);
  };
}

/** The user that an event is about, itself or anything below it. */
export function findAffectedUserId({ resourcePath }: AdminEvent): string | undefined {
  const [kind, id] = (resourcePath ?? '').split('/');
  return kind === 'users' && id !== undefined && id !== '' ? id : undefined;
}

/** The user that an event says was deleted: exactly that one, and not something of it. */
export function findDeletedUserId(event: AdminEvent): string | undefined {
  const id = findAffectedUserId(event);
  const isUser = event.resourcePath === `users/${String(id)}`;
  return event.operationType === 'DELETE' && isUser ? id : undefined;
}
