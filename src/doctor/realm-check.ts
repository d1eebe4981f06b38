import { createKeycloakAdmin, keycloakStatus, type KeycloakAdmin } from '../lib/keycloak-admin.ts';
import { PROVIDERS } from '../providers/index.ts';
import { checkDemoUsers } from './demo-check.ts';
import { checkEvents } from './events-check.ts';
import { error, type Finding } from './finding.ts';
import { checkProfile, type ProfileUse } from './profile-check.ts';
import { checkRights } from './rights-check.ts';
import { checkVaultUsers } from './vault-check.ts';
import { UnfitError } from '../lib/errors.ts';

interface Client {
  id: string;
  secret: string;
}

/** The part of the configuration that says which realms and clients are used. */
export interface RealmSettings {
  mode: 'local' | 'deployed';
  keycloak: { internalUrl: string; realm: string; vaultRealm: string; service: Client; vault: Client };
}

export interface RealmClients {
  config: RealmSettings;
  /** The service client, in the realm of the people. */
  people: KeycloakAdmin;
  /** The vault client, in the realm of the records; the same realm in the guide's layout. */
  vault: KeycloakAdmin;
}

/**
 * What the app checks at every start.
 * @throws Error listing what an administrator must change; AppError `keycloak_unavailable` when Keycloak is away.
 */
export async function assertRealmFit(clients: RealmClients): Promise<void> {
  const errors = (await checkRealms(clients)).filter(({ level }) => level === 'error');
  if (errors.length === 0) return;
  const lines = errors.map(({ check, detail, fix }) => `  - ${check}: ${detail}\n    ${fix}`);
  throw new UnfitError(`Keycloak is not fit for this app. Change there:\n${lines.join('\n')}`);
}

/** Everything that is checked at a start, and what takes longer: the vault's users one by one. */
export async function examineRealms(config: RealmSettings): Promise<Finding[]> {
  const { internalUrl: baseUrl, realm, vaultRealm, service, vault } = config.keycloak;
  const client = (name: string, { id, secret }: Client) =>
    createKeycloakAdmin({ baseUrl, realm: name, clientId: id, clientSecret: secret, timeoutMs: 30_000 });
  const clients = { config, people: client(realm, service), vault: client(vaultRealm, vault) };
  const findings = await checkRealms(clients);
  const reached = findings.every(({ check }) => check !== SIGN_IN);
  if (!reached || realm === vaultRealm) return findings;
  return [...findings, ...(await guarded('users of the vault realm', () => checkVaultUsers(clients.vault)))];
}

const SIGN_IN = 'the clients of the app';

async function checkRealms(clients: RealmClients): Promise<Finding[]> {
  const refused = await checkSignIn(clients);
  if (refused.length > 0) return refused;
  const { people, vault, config } = clients;
  const isOneRealm = people.realm === vault.realm;
  const providers = PROVIDERS.filter(({ localOnly }) => config.mode === 'local' || !localOnly).map(
    ({ id }) => id,
  );
  const use = { realm: people.realm, holdsPeople: true, holdsKeys: isOneRealm, providers };
  const checks = [
    guarded(`profile of ${people.realm}`, () => readAndCheckProfile(people, use)),
    guarded(`events of ${people.realm}`, () => checkEvents(people, { holdsKeys: isOneRealm })),
    guarded('rights', async () => [await checkRights(people, 'service'), await checkRights(vault, 'vault')]),
    ...(isOneRealm
      ? []
      : [
          guarded(`profile of ${vault.realm}`, () =>
            readAndCheckProfile(vault, { ...use, realm: vault.realm, holdsPeople: false, holdsKeys: true }),
          ),
          guarded(`events of ${vault.realm}`, () => checkEvents(vault, { holdsKeys: true })),
        ]),
    ...(config.mode === 'deployed' ? [guarded('demo users', () => checkDemoUsers(people))] : []),
  ];
  return (await Promise.all(checks)).flat();
}

async function readAndCheckProfile(admin: KeycloakAdmin, use: ProfileUse): Promise<Finding[]> {
  return checkProfile(await admin.call((client) => client.users.getProfile({ realm: admin.realm })), use);
}

/** A wrong secret is told from a Keycloak that is away. */
async function checkSignIn({ people, vault }: RealmClients): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [admin, name] of [
    [people, 'SERVICE'],
    [vault, 'VAULT'],
  ] as const) {
    await admin.ping();
    await admin
      .call((client) => client.getAccessToken())
      .catch((cause: unknown) => {
        findings.push(
          error(
            SIGN_IN,
            `realm ${admin.realm} refuses the ${name.toLowerCase()} client (${reasonOf(cause)})`,
            `Check KEYCLOAK_${name}_CLIENT_ID and _SECRET, and that the client has "Service accounts roles" on`,
          ),
        );
      });
  }
  return findings;
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error && cause.cause instanceof Error ? cause.cause.message : 'no token';
}

/** A check that Keycloak forbids is a finding, not the end of the others. */
async function guarded(check: string, look: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await look();
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
