import { assertRange } from '../http/page.ts';
import { jsonRoute, type Route } from '../http/route.ts';
import type { Database } from '../lib/postgres/database.ts';
import { userOwner } from '../lib/owner.ts';
import { listAuditEvents } from './events.ts';
import { AuditPage, AuditQuery } from './schema.ts';

/** The audit trail of the signed-in user. It requires a session, like the changes that it lists. */
export function auditRoutes({ database }: { database: Database }): Route[] {
  return [
    jsonRoute({
      method: 'get',
      path: '/api/v1/audit',
      access: 'session',
      query: AuditQuery,
      response: AuditPage,
      handle: ({ principal, query }) => {
        assertRange(query);
        const owner = userOwner(principal.user.id);
        return database.withOwner(owner, (sql) => listAuditEvents(sql, query));
      },
    }),
  ];
}
