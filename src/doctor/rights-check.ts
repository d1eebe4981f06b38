import { decodeJwt } from 'jose';
import { z } from 'zod';
import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { error, ok, warning, type Finding } from './finding.ts';

/** Roles of `realm-management` that each client needs. */
const REQUIRED_ROLES = {
  service: ['view-users', 'view-events', 'view-organizations'],
  vault: ['manage-users', 'view-events'],
} as const;
/** Roles that the required ones include. */
const IMPLIED_ROLES = ['query-users', 'query-groups', 'query-organizations'];

const TokenClaims = z.object({
  resource_access: z.record(z.string(), z.object({ roles: z.array(z.string()) })).optional(),
});

/** Compares the roles in a client's token with the roles that it needs. */
export async function checkRights(admin: KeycloakAdmin, kind: keyof typeof REQUIRED_ROLES): Promise<Finding> {
  const token = await admin.call((client) => client.getAccessToken());
  const claims = TokenClaims.parse(decodeJwt(token ?? ''));
  const roles = claims.resource_access?.['realm-management']?.roles ?? [];
  const needed: readonly string[] = REQUIRED_ROLES[kind];
  const check = `rights of the ${kind} client in realm ${admin.realm}`;
  const setting = 'Clients > (the client) > Service accounts roles';
  const missing = needed.filter((role) => !roles.includes(role));
  if (missing.length > 0)
    return error(check, `${missing.join(', ')} missing`, `${setting}: assign ${missing.join(', ')}`);
  const extra = roles.filter((role) => !needed.includes(role) && !IMPLIED_ROLES.includes(role));
  return extra.length === 0
    ? ok(check, needed.join(', '))
    : warning(check, `more than needed: ${extra.join(', ')}`, `${setting}: unassign ${extra.join(', ')}`);
}
