import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  exportJWK,
  exportSPKI,
  generateKeyPair,
  SignJWT,
  UnsecuredJWT,
  type CryptoKey,
  type JWTPayload,
} from 'jose';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createTokenVerifier, type TokenVerifier } from '../../src/identity/token-verifier.ts';
import { createKeycloakFetch } from '../../src/lib/keycloak/keycloak-fetch.ts';

const ISSUER = 'https://keycloak.example/realms/ops-center';
const LOGOUT_EVENT = 'http://schemas.openid.net/event/backchannel-logout';

let realmKey: CryptoKey;
let foreignKey: CryptoKey;
let publicPem: string;
let server: Server;
let internalUrl: string;
let verifier: TokenVerifier;
let isKeycloakDown = false;

beforeAll(async () => {
  const pair = await generateKeyPair('RS256', { extractable: true });
  realmKey = pair.privateKey;
  publicPem = await exportSPKI(pair.publicKey);
  foreignKey = (await generateKeyPair('RS256')).privateKey;
  const jwks = { keys: [{ ...(await exportJWK(pair.publicKey)), kid: 'realm', alg: 'RS256', use: 'sig' }] };
  server = createServer((_request, response) => {
    response.statusCode = isKeycloakDown ? 503 : 200;
    response.setHeader('content-type', 'application/json').end(JSON.stringify(jwks));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  internalUrl = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  verifier = createVerifier(['api-client']);
});
afterAll(async () => {
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await closed;
});

function createVerifier(apiClientIds: string[]): TokenVerifier {
  return createTokenVerifier({
    url: 'https://keycloak.example',
    internalUrl,
    realm: 'ops-center',
    webClientId: 'web',
    apiClientIds,
    fetch: createKeycloakFetch(2_000),
  });
}

const nowS = () => Math.floor(Date.now() / 1000);

function sign(
  claims: JWTPayload,
  header: Record<string, string> = {},
  key: CryptoKey | Uint8Array = realmKey,
) {
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'RS256', kid: 'realm', typ: 'JWT', ...header })
    .sign(key);
}

describe('a bearer token', () => {
  const good = () => ({
    iss: ISSUER,
    aud: ['ops-center-api', 'account'],
    typ: 'Bearer',
    azp: 'api-client',
    sub: 'u1',
    sid: 's1',
    iat: nowS() - 10,
    exp: nowS() + 60,
  });

  it('is accepted if Keycloak signed it for this app and a listed client', async () => {
    const claims = good();
    expect(await verifier.verifyBearer(await sign(claims))).toEqual({
      userId: 'u1',
      keycloakSessionId: 's1',
      issuedAtMs: claims.iat * 1000,
    });
  });

  it.each<[string, JWTPayload]>([
    ['from another issuer', { iss: 'https://keycloak.example/realms/master' }],
    ['for another audience', { aud: 'account' }],
    ['for no audience', { aud: undefined } as unknown as JWTPayload],
    ['that is an ID token', { typ: 'ID' }],
    ['that is a refresh token', { typ: 'Refresh' }],
    ['of another client', { azp: 'another-client' }],
    ['of no client', { azp: undefined }],
    ['without a subject', { sub: undefined } as unknown as JWTPayload],
    ['that has expired', { exp: 1_000 }],
    ['without an expiry', { exp: undefined } as unknown as JWTPayload],
    ['that is not valid yet', { nbf: 9_999_999_999 }],
    ['older than an hour that has not expired', { iat: nowS() - 3_660, exp: nowS() + 3_600 }],
  ])('%s is refused', async (_name, change) => {
    const token = await sign({ ...good(), ...change });
    await expect(verifier.verifyBearer(token)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('is accepted for an hour if its realm allows that lifetime', async () => {
    const token = await sign({ ...good(), iat: nowS() - 3_500 });
    await expect(verifier.verifyBearer(token)).resolves.toMatchObject({ userId: 'u1' });
  });

  it('is refused without a signature, and if signed with the public key as a shared secret', async () => {
    const unsigned = new UnsecuredJWT(good()).encode();
    const asSecret = await sign(good(), { alg: 'HS256' }, new TextEncoder().encode(publicPem));
    for (const token of [unsigned, asSecret])
      await expect(verifier.verifyBearer(token)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('is refused if signed with another key, also if the header contains that key', async () => {
    const pair = await generateKeyPair('RS256', { extractable: true });
    const withOwnKey = await new SignJWT(good())
      .setProtectedHeader({ alg: 'RS256', jwk: await exportJWK(pair.publicKey), jku: `${internalUrl}/evil` })
      .sign(pair.privateKey);
    for (const token of [await sign(good(), {}, foreignKey), withOwnKey])
      await expect(verifier.verifyBearer(token)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('is refused if no client is listed', async () => {
    await expect(createVerifier([]).verifyBearer(await sign(good()))).rejects.toMatchObject({
      code: 'unauthenticated',
    });
  });

  it('is not refused as invalid while the keys of the realm cannot be read', async () => {
    isKeycloakDown = true;
    const fresh = createVerifier(['api-client']);
    await expect(fresh.verifyBearer(await sign(good()))).rejects.toMatchObject({
      code: 'keycloak_unavailable',
    });
    isKeycloakDown = false;
    await expect(fresh.verifyBearer(await sign(good()))).resolves.toMatchObject({ userId: 'u1' });
  });
});

describe('a logout token', () => {
  const header = { typ: 'logout+jwt' };
  const good = () => ({
    iss: ISSUER,
    aud: 'web',
    sub: 'u1',
    sid: 's1',
    jti: 'j1',
    iat: nowS(),
    exp: nowS() + 120,
    events: { [LOGOUT_EVENT]: {} },
  });

  it('of Keycloak names the ended session', async () => {
    const claims = good();
    expect(await verifier.verifyLogoutToken(await sign(claims, header))).toEqual({
      userId: 'u1',
      keycloakSessionId: 's1',
      issuedAtMs: claims.iat * 1000,
      expiresAtMs: claims.exp * 1000,
      jti: 'j1',
    });
  });

  it('can name the user only', async () => {
    const { sid: _sid, ...claims } = good();
    expect(await verifier.verifyLogoutToken(await sign(claims, header))).toMatchObject({
      userId: 'u1',
      keycloakSessionId: undefined,
    });
  });

  it.each<[string, Record<string, unknown>]>([
    ['from another issuer', { iss: 'https://keycloak.example/realms/master' }],
    ['for another client', { aud: 'another-client' }],
    ['without a user and session', { sub: undefined, sid: undefined }],
    ['without an id', { jti: undefined }],
    ['without the event', { events: undefined }],
    ['with another event', { events: { 'http://schemas.openid.net/event/other': {} } }],
    ['with an event that is not an object', { events: { [LOGOUT_EVENT]: true } }],
    ['with a nonce, like an ID token', { nonce: 'n' }],
    ['with an empty nonce', { nonce: null }],
    ['without a time of issue', { iat: undefined }],
    ['without an expiry', { exp: undefined }],
    ['that has expired', { iat: nowS() - 130, exp: nowS() - 10 }],
    ['older than five minutes that has not expired', { iat: nowS() - 3_600, exp: nowS() + 3_600 }],
  ])('%s is refused', async (_name, change) => {
    const token = await sign({ ...good(), ...change }, header);
    expect(await verifier.verifyLogoutToken(token)).toBeUndefined();
  });

  it('is refused if it has another type, no signature or a foreign signature', async () => {
    const tokens = [
      await sign(good(), { typ: 'JWT' }),
      await sign(good(), header, foreignKey),
      await sign(good(), { ...header, alg: 'HS256' }, new TextEncoder().encode(publicPem)),
      new UnsecuredJWT(good()).encode(),
      'not a token',
    ];
    for (const token of tokens) expect(await verifier.verifyLogoutToken(token)).toBeUndefined();
  });
});
