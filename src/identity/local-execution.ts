import { isAppError, keycloakUnavailable } from '../lib/errors.ts';
import { findKeycloakStatus, type KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';

/** Whether code can run on this installation's own machine, and for which users. */
export interface LocalExecution {
  /** Setting `LOCAL_EXECUTION`. */
  readonly isOn: boolean;
  /**
   * Whether the user has the role `ops-operator`, see {@link hasOperatorRole}. Returns false without a request while local
   * execution is off.
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
    isAllowed: async (userId) => isOn && (await hasOperatorRole(keycloakAdmin, userId)),
  };
}

/**
 * Returns true if the user has the realm role `ops-operator`, directly, through a group or through a composite role. Reads
 * from Keycloak on every call, so that removing the role takes effect immediately.
 * @throws AppError `keycloak_unavailable` (503).
 */
export async function hasOperatorRole(keycloakAdmin: KeycloakAdmin, id: string): Promise<boolean> {
  // With an empty id, the address would be another one.
  if (id === '') return false;
  try {
    const roles = await keycloakAdmin.call((client) => client.users.listCompositeRealmRoleMappings({ id }));
    return roles.some(({ name }) => name === OPERATOR_ROLE);
  } catch (error) {
    if (isAppError(error)) throw error;
    if (findKeycloakStatus(error) === 404) return false;
    throw keycloakUnavailable(error, 'Your roles cannot be read from Keycloak. Try again shortly.');
  }
}
