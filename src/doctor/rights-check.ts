import { decodeJwt } from 'jose';
import { z } from 'zod';
import type { KeycloakAdmin } from '../lib/keycloak-admin.ts';
import { error, ok, warning, type Finding } from './finding.ts';

/** The roles of `realm-management` that each client needs. */
const NEEDED = {
  service: ['view-users', 'view-events', 'view-organizations'],
  vault: ['manage-users', 'view-events'],
} as const;
/** Roles that come along with the needed ones. */
const IMPLIED = ['query-users', 'query-groups', 'query-organizations'];

const Claims = z.object({
  resource_access: z.record(z.string(), z.object({ roles: z.array(z.string()) })).optional(),
});

/** Compares what a client may do, by its own token, with what it needs. */
export async function checkRights(admin: KeycloakAdmin, kind: keyof typeof NEEDED): Promise<Finding> {
  const token = await admin.call((client) => client.getAccessToken());
  const claims = Claims.parse(decodeJwt(token ?? ''));
  const roles = claims.resource_access?.['realm-management']?.roles ?? [];
  const needed: readonly string[] = NEEDED[kind];
  const check = `rights of the ${kind} client in realm ${admin.realm}`;
  const where = 'Clients > (the client) > Service accounts roles';
  const missing = needed.filter((role) => !roles.includes(role));
  if (missing.length > 0)
    return error(check, `${missing.join(', ')} missing`, `${where}: assign ${missing.join(', ')}`);
  const tooMany = roles.filter((role) => !needed.includes(role) && !IMPLIED.includes(role));
  return tooMany.length === 0
    ? ok(check, needed.join(', '))
    : warning(check, `more than needed: ${tooMany.join(', ')}`, `${where}: unassign ${tooMany.join(', ')}`);
}
