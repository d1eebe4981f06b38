import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { error, ok, warning, type Finding } from './finding.ts';

/** The app needs admin events to detect that a user was changed or signed out in the console. */
export async function checkEvents(admin: KeycloakAdmin, use: { holdsKeys: boolean }): Promise<Finding[]> {
  const events = await admin.call((client) => client.realms.getConfigEvents({ realm: admin.realm }));
  const check = `admin events of realm ${admin.realm}`;
  const setting = 'Realm settings > Events > Admin events settings';
  const saved =
    events.adminEventsEnabled === true
      ? ok(check, 'are saved')
      : error(
          check,
          'are not saved: changes by an administrator would take effect late',
          `${setting}: turn "Save events" on`,
        );
  const holdsCiphertext = use.holdsKeys && events.adminEventsDetailsEnabled === true;
  return holdsCiphertext
    ? [
        saved,
        warning(
          check,
          'include representations: encrypted keys are copied into the event table',
          `${setting}: turn "Include representation" off`,
        ),
      ]
    : [saved];
}
