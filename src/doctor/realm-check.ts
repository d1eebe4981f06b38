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

/** The part of the configuration that says which realms and clients are used. */
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
  /** The service client, in the realm of the people. */
  mainAdmin: KeycloakAdmin;
  /** The vault client, in the realm of the records; the same realm in the guide's layout. */
  vaultAdmin: KeycloakAdmin;
}

/**
 * What the app checks at every start.
 * @throws Error listing what an administrator must change; AppError `keycloak_unavailable` when Keycloak is away.
 */
export async function assertRealmsValid(clients: RealmClients): Promise<void> {
  const errors = (await checkRealms(clients)).filter(({ level }) => level === 'error');
  if (errors.length === 0) return;
  const lines = errors.map(({ check, detail, fix }) => `  - ${check}: ${detail}\n    ${fix}`);
  throw new UnfitError(`Keycloak is not fit for this app. Change there:\n${lines.join('\n')}`);
}

/** Everything that is checked at a start, and what takes longer: the vault's users one by one. */
export async function checkRealmsInDepth(config: RealmSettings): Promise<Finding[]> {
  const { internalUrl: baseUrl, realm, vaultRealm, service, vault: vaultAdmin } = config.keycloak;
  const client = (name: string, { id, secret }: ClientCredentials) =>
    createKeycloakAdmin({ baseUrl, realm: name, clientId: id, clientSecret: secret, timeoutMs: 30_000 });
  const clients = { config, mainAdmin: client(realm, service), vaultAdmin: client(vaultRealm, vaultAdmin) };
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
  const providers = PROVIDERS.filter(({ localOnly }) => config.mode === 'local' || !localOnly).map(
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

/** A wrong secret is told from a Keycloak that is away. */
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

/** A check that Keycloak forbids is a finding, not the end of the others. */
async function runCheck(check: string, run: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await run();
  } catch (cause) {
    const status = keycloakStatus(cause);
    if (status === undefined) throw cause;
    return [
      error(
        check,
        `Keycloak answered ${status} to the client that should read it`,
        'Give the service account its roles, as in keycloak/README.md',
      ),
    ];
  }
}
