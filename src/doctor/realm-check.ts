import { createKeycloakAdmin, keycloakStatus, type KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { PROVIDERS } from '../providers/index.ts';
import { checkDemoUsers } from './demo-check.ts';
import { checkEvents } from './events-check.ts';
import { error, type Finding } from './finding.ts';
import { checkProfile, type ProfileUse } from './profile-check.ts';
import { checkRights } from './rights-check.ts';
import { checkVaultUsers } from './vault-check.ts';
import { UnfitError } from '../lib/errors.ts';

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
  config: RealmSettings;
  /** Main realm, as the service client. */
  mainAdmin: KeycloakAdmin;
  /** Vault realm, as the vault client. In the one-realm layout this is the main realm too. */
  vaultAdmin: KeycloakAdmin;
}

/**
 * Runs the checks of every start.
 * @throws UnfitError listing what an administrator must change; AppError `keycloak_unavailable`.
 */
export async function assertRealmsValid(clients: RealmClients): Promise<void> {
  const errors = (await checkRealms(clients)).filter(({ level }) => level === 'error');
  if (errors.length === 0) return;
  const lines = errors.map(({ check, detail, fix }) => `  - ${check}: ${detail}\n    ${fix}`);
  throw new UnfitError(`Keycloak is not set up correctly. Change in Keycloak:\n${lines.join('\n')}`);
}

/** Runs the checks of every start, and a slower one: it reads each user of the vault realm. */
export async function checkRealmsInDepth(config: RealmSettings): Promise<Finding[]> {
  const { internalUrl: baseUrl, realm, vaultRealm, service, vault } = config.keycloak;
  const client = (name: string, { id, secret }: ClientCredentials) =>
    createKeycloakAdmin({ baseUrl, realm: name, clientId: id, clientSecret: secret, timeoutMs: 30_000 });
  const clients = { config, mainAdmin: client(realm, service), vaultAdmin: client(vaultRealm, vault) };
  const findings = await checkRealms(clients);
  const canSignIn = findings.every(({ check }) => check !== SIGN_IN_CHECK);
  if (!canSignIn || realm === vaultRealm) return findings;
  return [
    ...findings,
    ...(await runCheck('users of the vault realm', () => checkVaultUsers(clients.vaultAdmin))),
  ];
}

const SIGN_IN_CHECK = 'the clients of the app';

async function checkRealms(clients: RealmClients): Promise<Finding[]> {
  const signInFindings = await checkSignIn(clients);
  if (signInFindings.length > 0) return signInFindings;
  const { mainAdmin, vaultAdmin, config } = clients;
  const isOneRealm = mainAdmin.realm === vaultAdmin.realm;
  const providers = PROVIDERS.filter(({ isLocalOnly }) => config.mode === 'local' || !isLocalOnly).map(
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
    ...(config.mode === 'deployed' ? [runCheck('demo users', () => checkDemoUsers(mainAdmin))] : []),
  ];
  return (await Promise.all(checks)).flat();
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
          error(
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

/** Turns an error status of Keycloak into a finding, so that the other checks still run. */
async function runCheck(check: string, run: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await run();
  } catch (cause) {
    const status = keycloakStatus(cause);
    if (status === undefined) throw cause;
    return [
      error(
        check,
        `Keycloak answered the client with status ${status}`,
        'Give the service account the roles listed in keycloak/README.md',
      ),
    ];
  }
}
