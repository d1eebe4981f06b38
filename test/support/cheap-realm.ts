import type ClientRepresentation from '@keycloak/keycloak-admin-client/lib/defs/clientRepresentation.js';
import type RealmRepresentation from '@keycloak/keycloak-admin-client/lib/defs/realmRepresentation.js';
import { generateKeyPairSync } from 'node:crypto';
import { evidence } from './evidence.ts';

/**
 * Tests create some thousand users and sign them in. Keycloak's own hash takes 200 ms of a processor each time, which
 * made Keycloak the slowest part of a run.
 */
export const PASSWORD_POLICY = 'hashAlgorithm(pbkdf2-sha256) and hashIterations(1)';

/** For ID tokens, which the app verifies. With the default, RS256, a signature takes 20 ms of a processor. */
export const SIGNATURE_ALGORITHM = 'ES256';

/**
 * For the tokens of the admin API, which only Keycloak verifies, at each call: that takes 7 ms with ES256. A quick start
 * keeps Keycloak's defaults, also in tests.
 */
export const ADMIN_TOKEN_ALGORITHM = 'HS256';

export const KEY_PROVIDER = 'org.keycloak.keys.KeyProvider';

/** Generates the keys for {@link SIGNATURE_ALGORITHM}. */
export const ECDSA_KEYS = {
  name: 'ecdsa-generated',
  providerId: 'ecdsa-generated',
  config: { priority: ['200'], ecdsaEllipticCurveKey: ['P-256'] },
};

/** A client whose service account calls the admin API, with cheap tokens; other clients are not changed. */
export function toCheapClient(client: ClientRepresentation): ClientRepresentation {
  if (client.serviceAccountsEnabled !== true) return client;
  const attributes = {
    ...(client.attributes as Record<string, unknown> | undefined),
    'access.token.signed.response.alg': ADMIN_TOKEN_ALGORITHM,
  };
  return { ...client, attributes };
}

/** The representation of a realm with a cheap hash of passwords and cheap signatures. */
export function toCheapRealm({ clients, components, ...realm }: RealmRepresentation): RealmRepresentation {
  return {
    ...realm,
    passwordPolicy: PASSWORD_POLICY,
    defaultSignatureAlgorithm: SIGNATURE_ALGORITHM,
    ...(clients === undefined ? {} : { clients: clients.map(toCheapClient) }),
    // The client's type lacks the list of each kind of component.
    components: { ...components, [KEY_PROVIDER]: [ECDSA_KEYS, createRsaKey()] as object },
  };
}

/** Keycloak generates an RSA key for a realm without one, which takes seconds of a processor. */
function createRsaKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const text = privateKey.export({ type: 'pkcs8', format: 'der' }).toString('base64');
  evidence.registerSecret('private key', text);
  return { name: 'rsa', providerId: 'rsa', config: { priority: ['100'], privateKey: [text] } };
}
