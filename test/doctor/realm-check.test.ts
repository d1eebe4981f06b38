import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type KcAdminClient from '@keycloak/keycloak-admin-client';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Config } from '../../src/config/config.ts';
import type { Finding } from '../../src/doctor/finding.ts';
import { createDoctor } from '../../src/doctor/service.ts';
import { createKeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';
import { toCheapRealm } from '../support/cheap-realm.ts';
import { adminClient, stack } from '../support/stack.ts';

const suffix = randomBytes(4).toString('hex');
const MAIN = `doctor-${suffix}`;
const VAULT = `doctor-vault-${suffix}`;
/** The public address in both pairs of realms. */
const PUBLIC_URL = 'http://localhost:1';
const secret = randomBytes(24).toString('base64url');

type Keycloak = Config['keycloak'];
const client = (id: string) => ({ id, secret });
const scratch: Keycloak = {
  url: stack.keycloak.url,
  internalUrl: stack.keycloak.url,
  realm: MAIN,
  vaultRealm: VAULT,
  web: client('ops-center-web'),
  service: client('ops-center-service'),
  vault: client('ops-center-vault'),
};
const shipped: Keycloak = {
  ...scratch,
  realm: stack.keycloak.realm,
  vaultRealm: stack.keycloak.vaultRealm,
  service: stack.keycloak.serviceClient,
  vault: stack.keycloak.vaultClient,
};

const checkInDepth = (keycloak: Keycloak, mode: Config['mode'] = 'local') =>
  createDoctor({ mode, publicUrl: PUBLIC_URL, keycloak }).checkRealmsInDepth();
const problems = (findings: Finding[]) =>
  findings
    .filter(({ level }) => level !== 'ok')
    .map(({ level, check, detail }) => `${level}: ${check}: ${detail}`);

function assertValid(keycloak: Keycloak): Promise<void> {
  const createAdmin = (realm: string, { id, secret: clientSecret }: { id: string; secret: string }) =>
    createKeycloakAdmin({ baseUrl: keycloak.internalUrl, realm, clientId: id, clientSecret });
  const clients = {
    mainAdmin: createAdmin(keycloak.realm, keycloak.service),
    vaultAdmin: createAdmin(keycloak.vaultRealm, keycloak.vault),
  };
  return createDoctor({ mode: 'local', publicUrl: PUBLIC_URL, keycloak }, clients).assertRealmsValid();
}

/** Creates a copy of a shipped realm with another name, like an administrator would. */
async function makeRealm(admin: KcAdminClient, file: string, realm: string): Promise<void> {
  const text = readFileSync(`keycloak/${file}`, 'utf8')
    .replaceAll(/\$\{KEYCLOAK_\w+_SECRET\}/g, secret)
    .replaceAll(/\$\{(PUBLIC|INTERNAL)_URL\}/g, PUBLIC_URL);
  await admin.realms.create(toCheapRealm({ ...(JSON.parse(text) as object), realm }));
}

let admin: KcAdminClient;
beforeAll(async () => {
  admin = await adminClient();
  await makeRealm(admin, 'ops-center-realm.json', MAIN);
  await makeRealm(admin, 'ops-center-vault-realm.json', VAULT);
}, 60_000);
afterAll(async () => {
  const again = await adminClient();
  await again.realms.del({ realm: MAIN });
  await again.realms.del({ realm: VAULT });
});

// The bootstrap admin's tokens expire after a minute.
beforeEach(async () => {
  admin = await adminClient();
});

/** Changes the scratch realms while `check` runs. */
async function whileChanged<T>(
  change: () => Promise<() => Promise<unknown>>,
  check: () => Promise<T>,
): Promise<T> {
  const undo = await change();
  try {
    return await check();
  } finally {
    await undo();
  }
}

async function changeProfile(realm: string, edit: (text: string) => string) {
  const before = await admin.users.getProfile({ realm });
  const changed = JSON.parse(edit(JSON.stringify(before))) as typeof before;
  await admin.users.updateProfile({ realm, ...changed });
  return () => admin.users.updateProfile({ realm, ...before });
}

async function changeRealm(realm: string, rep: Record<string, boolean>) {
  await admin.realms.update({ realm }, rep);
  const previous = Object.fromEntries(Object.entries(rep).map(([name, value]) => [name, !value]));
  return () => admin.realms.update({ realm }, previous);
}

async function changeRole(realm: string, clientId: string, role: string, action: 'add' | 'remove') {
  const [account] = await admin.users.find({ realm, username: `service-account-${clientId}`, exact: true });
  const serviceUser = account ?? (await serviceAccount(realm, clientId));
  const [management] = await admin.clients.find({ realm, clientId: 'realm-management' });
  const id = management?.id ?? '';
  const found = await admin.clients.findRole({ realm, id, roleName: role });
  const roles = [{ id: found?.id ?? '', name: role }];
  const mapping = { realm, id: serviceUser.id ?? '', clientUniqueId: id, roles };
  const add = () => admin.users.addClientRoleMappings(mapping);
  const remove = () => admin.users.delClientRoleMappings(mapping);
  await (action === 'add' ? add() : remove());
  return action === 'add' ? remove : add;
}

async function serviceAccount(realm: string, clientId: string) {
  const [found] = await admin.clients.find({ realm, clientId });
  return admin.clients.getServiceAccountUser({ realm, id: found?.id ?? '' });
}

describe('the shipped realms', () => {
  it('pass all checks without a warning', async () => {
    expect(problems(await checkInDepth(shipped))).toEqual([]);
    await assertValid(shipped);
  });

  it('are refused in a deployment while they have demo users', async () => {
    expect(problems(await checkInDepth(shipped, 'deployed'))).toEqual([
      expect.stringMatching(/^error: demo users .*free, trial, starter.*public password/),
    ]);
  });
});

describe('a realm changed by an administrator', () => {
  const editableTier = () =>
    changeProfile(MAIN, (text) =>
      text.replace(
        /("name":"subscription_tier".*?"permissions":\{[^}]*"edit":\[)[^\]]*\]/,
        '$1"admin","user"]',
      ),
    );

  it('refuses the start with what to change if users can edit their tier', async () => {
    await whileChanged(editableTier, async () => {
      await expect(assertValid(scratch)).rejects.toThrow(
        /users can change their own tier\n.*Realm settings > User profile: declare subscription_tier/,
      );
    });
    await assertValid(scratch);
  });

  it('refuses the start if users can see or edit keys in the vault realm', async () => {
    const enabled = () => changeProfile(VAULT, (text) => text.replace('ADMIN_EDIT', 'ENABLED'));
    await whileChanged(enabled, async () => {
      await expect(assertValid(scratch)).rejects.toThrow(/policy for unmanaged attributes is ENABLED/);
    });
  });

  it('refuses the start if admin events are not saved', async () => {
    await whileChanged(
      () => changeRealm(MAIN, { adminEventsEnabled: false }),
      async () => {
        expect(problems(await checkInDepth(scratch))).toEqual([
          expect.stringMatching(/^error: admin events of realm doctor-/),
        ]);
      },
    );
  });

  it('warns if ID tokens do not tell when the user entered the password', async () => {
    const removeScope = async () => {
      const [{ id = '' } = {}] = await admin.clients.find({ realm: MAIN, clientId: 'ops-center-web' });
      const scopes = await admin.clients.listDefaultClientScopes({ realm: MAIN, id });
      const target = {
        realm: MAIN,
        id,
        clientScopeId: scopes.find(({ name }) => name === 'basic')?.id ?? '',
      };
      await admin.clients.delDefaultClientScope(target);
      return () => admin.clients.addDefaultClientScope(target);
    };
    await whileChanged(removeScope, async () => {
      expect(problems(await checkInDepth(scratch))).toEqual([
        expect.stringMatching(/^warning: sign-ins by the client ops-center-web .*do not tell when/),
      ]);
      await assertValid(scratch);
    });
  });

  it('warns if the web client may not return to the app', async () => {
    const otherAddress = createDoctor({ mode: 'local', publicUrl: 'http://localhost:2', keycloak: scratch });
    expect(problems(await otherAddress.checkRealmsInDepth())).toEqual([
      expect.stringMatching(/^warning: sign-ins by the client ops-center-web .*are refused \(status 400\)/),
    ]);
  });

  it('warns if encrypted keys are copied into the event table', async () => {
    await whileChanged(
      () => changeRealm(VAULT, { adminEventsDetailsEnabled: true }),
      async () => {
        expect(problems(await checkInDepth(scratch))).toEqual([
          expect.stringMatching(/^warning: .*event table/),
        ]);
      },
    );
  });

  it.each([
    ['service', 'view-events', MAIN, 'ops-center-service'],
    ['vault', 'manage-users', VAULT, 'ops-center-vault'],
  ] as const)('refuses the start if the %s client lacks %s', async (kind, role, realm, clientId) => {
    await whileChanged(
      () => changeRole(realm, clientId, role, 'remove'),
      async () => {
        expect(problems(await checkInDepth(scratch))).toContain(
          `error: rights of the ${kind} client in realm ${realm}: ${role} missing`,
        );
      },
    );
  });

  it('warns if the service client could take over accounts', async () => {
    await whileChanged(
      () => changeRole(MAIN, 'ops-center-service', 'manage-users', 'add'),
      async () => {
        expect(problems(await checkInDepth(scratch))).toEqual([
          `warning: rights of the service client in realm ${MAIN}: more than needed: manage-users`,
        ]);
      },
    );
  });

  it('reports a vault user that is enabled or has a password', async () => {
    const addUser = async () => {
      const { id } = await admin.users.create({
        realm: VAULT,
        username: 'some-user',
        enabled: true,
        credentials: [{ type: 'password', value: secret }],
      });
      return () => admin.users.del({ realm: VAULT, id });
    };
    await whileChanged(addUser, async () => {
      expect(problems(await checkInDepth(scratch))).toEqual([
        `error: users of the vault realm ${VAULT}: enabled: some-user`,
        `error: users of the vault realm ${VAULT}: have credentials: some-user`,
      ]);
    });
  });
});

describe('a configuration that does not match Keycloak', () => {
  it('is distinguished from an unavailable Keycloak: the finding names the setting of a wrong secret', async () => {
    const wrong = { ...scratch, vault: { id: 'ops-center-vault', secret: 'wrong' } };
    const findings = await checkInDepth(wrong);
    expect(problems(findings)).toHaveLength(1);
    expect(findings[0]?.fix).toContain('KEYCLOAK_VAULT_CLIENT_ID and _SECRET');
    const unavailable = { ...scratch, internalUrl: 'http://127.0.0.1:1' };
    await expect(assertValid(unavailable)).rejects.toMatchObject({ code: 'keycloak_unavailable' });
  });

  it('is refused in the one-realm layout until the profile can store keys', async () => {
    const oneRealm = { ...scratch, vaultRealm: MAIN, vault: scratch.service };
    expect(problems(await checkInDepth(oneRealm))).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^error: keys can be stored in realm doctor-.*byok_openai/),
      ]),
    );
    const allow = () =>
      changeProfile(MAIN, (text) => {
        const profile = JSON.parse(text) as Record<string, unknown>;
        return JSON.stringify({ ...profile, unmanagedAttributePolicy: 'ADMIN_EDIT' });
      });
    await whileChanged(allow, async () => {
      expect(problems(await checkInDepth(oneRealm))).toEqual([
        `error: rights of the vault client in realm ${MAIN}: manage-users missing`,
      ]);
    });
  });
});
