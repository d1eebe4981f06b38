import { decodeJwt } from 'jose';
import { z } from 'zod';
import { readDemo } from '../lib/keycloak/demo-users.ts';
import { findKeycloakStatus, type KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { PROVIDERS } from '../providers/index.ts';
import { createError, createOk, createWarning, type Finding } from './finding.ts';
import { checkProfile, type ProfileUse } from './profile-check.ts';
import { checkVaultUsers } from './vault-check.ts';

interface ClientCredentials {
  id: string;
  secret: string;
}

/** The realms and clients of the configuration. */
export interface RealmSettings {
  mode: 'local' | 'deployed';
  keycloak: {
    internalUrl: string;
    realm: string;
    vaultRealm: string;
    service: ClientCredentials;
    vault: ClientCredentials;
  };
}

export interface RealmClients {
  /** Main realm, as the service client. */
  mainAdmin: KeycloakAdmin;
  /** Vault realm, as the vault client. In the one-realm layout this is the main realm too. */
  vaultAdmin: KeycloakAdmin;
}

const SIGN_IN_CHECK = 'the clients of the app';

/**
 * Checks the clients, their rights, the profiles and the events of the realms.
 * @throws AppError `keycloak_unavailable`.
 */
export async function checkRealms({ mode }: RealmSettings, clients: RealmClients): Promise<Finding[]> {
  const signInFindings = await checkSignIn(clients);
  if (signInFindings.length > 0) return signInFindings;
  const { mainAdmin, vaultAdmin } = clients;
  const isOneRealm = mainAdmin.realm === vaultAdmin.realm;
  const providers = PROVIDERS.filter(({ isLocalOnly }) => mode === 'local' || !isLocalOnly).map(
    ({ id }) => id,
  );
  const use = { realm: mainAdmin.realm, holdsUsers: true, holdsKeys: isOneRealm, providers };
  const checks = [
    runCheck(`profile of ${mainAdmin.realm}`, () => readAndCheckProfile(mainAdmin, use)),
    runCheck(`events of ${mainAdmin.realm}`, () => checkEvents(mainAdmin, { holdsKeys: isOneRealm })),
    runCheck('rights', async () => [
      await checkRights(mainAdmin, 'service'),
      await checkRights(vaultAdmin, 'vault'),
    ]),
    ...(isOneRealm
      ? []
      : [
          runCheck(`profile of ${vaultAdmin.realm}`, () =>
            readAndCheckProfile(vaultAdmin, {
              ...use,
              realm: vaultAdmin.realm,
              holdsUsers: false,
              holdsKeys: true,
            }),
          ),
          runCheck(`events of ${vaultAdmin.realm}`, () => checkEvents(vaultAdmin, { holdsKeys: true })),
        ]),
    ...(mode === 'deployed' ? [runCheck('demo users', () => checkDemoUsers(mainAdmin))] : []),
  ];
  return (await Promise.all(checks)).flat();
}

/**
 * Checks each user of a vault realm of its own.
 * @param findings of {@link checkRealms}: a realm that refuses its client cannot be checked.
 */
export async function checkVault(
  { mainAdmin, vaultAdmin }: RealmClients,
  findings: readonly Finding[],
): Promise<Finding[]> {
  const canSignIn = findings.every(({ check }) => check !== SIGN_IN_CHECK);
  if (!canSignIn || mainAdmin.realm === vaultAdmin.realm) return [];
  return runCheck('users of the vault realm', () => checkVaultUsers(vaultAdmin));
}

async function readAndCheckProfile(admin: KeycloakAdmin, use: ProfileUse): Promise<Finding[]> {
  return checkProfile(await admin.call((client) => client.users.getProfile({ realm: admin.realm })), use);
}

/** Reports a wrong client secret as a finding, and throws if Keycloak is unavailable. */
async function checkSignIn({ mainAdmin, vaultAdmin }: RealmClients): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [admin, name] of [
    [mainAdmin, 'SERVICE'],
    [vaultAdmin, 'VAULT'],
  ] as const) {
    await admin.ping();
    await admin
      .call((client) => client.getAccessToken())
      .catch((cause: unknown) => {
        findings.push(
          createError(
            SIGN_IN_CHECK,
            `realm ${admin.realm} refuses the ${name.toLowerCase()} client (${readReason(cause)})`,
            `Check KEYCLOAK_${name}_CLIENT_ID and _SECRET, and that the client has "Service accounts roles" on`,
          ),
        );
      });
  }
  return findings;
}

function readReason(cause: unknown): string {
  return cause instanceof Error && cause.cause instanceof Error ? cause.cause.message : 'no token';
}

/** The app needs admin events to detect that a user was changed or signed out in the console. */
async function checkEvents(admin: KeycloakAdmin, use: { holdsKeys: boolean }): Promise<Finding[]> {
  const events = await admin.call((client) => client.realms.getConfigEvents({ realm: admin.realm }));
  const check = `admin events of realm ${admin.realm}`;
  const setting = 'Realm settings > Events > Admin events settings';
  const saved =
    events.adminEventsEnabled === true
      ? createOk(check, 'are saved')
      : createError(
          check,
          'are not saved: changes by an administrator would take effect late',
          `${setting}: turn "Save events" on`,
        );
  const holdsCiphertext = use.holdsKeys && events.adminEventsDetailsEnabled === true;
  return holdsCiphertext
    ? [
        saved,
        createWarning(
          check,
          'include representations: encrypted keys are copied into the event table',
          `${setting}: turn "Include representation" off`,
        ),
      ]
    : [saved];
}

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
async function checkRights(admin: KeycloakAdmin, kind: keyof typeof REQUIRED_ROLES): Promise<Finding> {
  const token = await admin.call((client) => client.getAccessToken());
  const claims = TokenClaims.parse(decodeJwt(token ?? ''));
  const roles = claims.resource_access?.['realm-management']?.roles ?? [];
  const needed: readonly string[] = REQUIRED_ROLES[kind];
  const check = `rights of the ${kind} client in realm ${admin.realm}`;
  const setting = 'Clients > (the client) > Service accounts roles';
  const missing = needed.filter((role) => !roles.includes(role));
  if (missing.length > 0)
    return createError(check, `${missing.join(', ')} missing`, `${setting}: assign ${missing.join(', ')}`);
  const extra = roles.filter((role) => !needed.includes(role) && !IMPLIED_ROLES.includes(role));
  return extra.length === 0
    ? createOk(check, needed.join(', '))
    : createWarning(
        check,
        `more than needed: ${extra.join(', ')}`,
        `${setting}: unassign ${extra.join(', ')}`,
      );
}

/** Turns an error status of Keycloak into a finding, so that the other checks still run. */
async function runCheck(check: string, run: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await run();
  } catch (cause) {
    const status = findKeycloakStatus(cause);
    if (status === undefined) throw cause;
    return [
      createError(
        check,
        `Keycloak responded to the client with status ${status}`,
        'Give the service account the roles listed in keycloak/README.md',
      ),
    ];
  }
}

/** Reports demo users, because their password is public. */
async function checkDemoUsers(admin: KeycloakAdmin): Promise<Finding[]> {
  const check = `demo users in realm ${admin.realm}`;
  const { users } = await readDemo();
  const present = await Promise.all(
    users.map(async ({ username, email }) => {
      const found = await admin.call((client) =>
        client.users.find({ realm: admin.realm, username, email, exact: true, briefRepresentation: true }),
      );
      return found.length > 0 ? [username] : [];
    }),
  );
  const names = present.flat();
  if (names.length === 0) return [createOk(check, 'none')];
  return [
    createError(
      check,
      `${names.join(', ')} can sign in with a public password`,
      `Users: delete ${names.join(', ')}`,
    ),
  ];
}
