import { isAppError, keycloakUnavailable } from '../lib/errors.ts';
import { keycloakStatus, type KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';

/** Code on this installation's own machine: whether, and for whom. */
export interface LocalExecution {
  /** The operator's switch, `LOCAL_EXECUTION`. */
  readonly isOn: boolean;
  /**
   * Whether a user has the realm role for it, given directly, by a group or within another role. Asks Keycloak each
   * time, so that a role that was taken away is of no use any more; nobody is asked while it is off.
   * @throws AppError `keycloak_unavailable` (503).
   */
  isAllowed: (userId: string) => Promise<boolean>;
}

const OPERATOR_ROLE = 'ops-operator';

export function createLocalExecution(options: {
  isOn: boolean;
  keycloakAdmin: KeycloakAdmin;
}): LocalExecution {
  const { isOn, keycloakAdmin } = options;
  return {
    isOn,
    isAllowed: async (userId) => isOn && userId !== '' && (await hasRole(keycloakAdmin, userId)),
  };
}

async function hasRole(keycloakAdmin: KeycloakAdmin, id: string): Promise<boolean> {
  try {
    const roles = await keycloakAdmin.call((client) => client.users.listCompositeRealmRoleMappings({ id }));
    return roles.some(({ name }) => name === OPERATOR_ROLE);
  } catch (error) {
    if (isAppError(error)) throw error;
    if (keycloakStatus(error) === 404) return false;
    throw keycloakUnavailable(error, 'Keycloak did not say which roles you have. Try again shortly.');
  }
}
