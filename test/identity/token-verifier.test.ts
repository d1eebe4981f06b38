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

  it('that Keycloak signed for us and a listed client tells whose it is', async () => {
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
    ['of nobody', { sub: undefined } as unknown as JWTPayload],
    ['that has ended', { exp: 1_000 }],
    ['that never ends', { exp: undefined } as unknown as JWTPayload],
    ['that is not valid yet', { nbf: 9_999_999_999 }],
    ['of more than an hour ago that lives on', { iat: nowS() - 3_660, exp: nowS() + 3_600 }],
  ])('%s is refused', async (_name, change) => {
    const token = await sign({ ...good(), ...change });
    await expect(verifier.verifyBearer(token)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('is accepted for an hour where its realm lets it live that long', async () => {
    const token = await sign({ ...good(), iat: nowS() - 3_500 });
    await expect(verifier.verifyBearer(token)).resolves.toMatchObject({ userId: 'u1' });
  });

  it('without a signature, or signed with a shared secret, is refused: the public key is no secret', async () => {
    const unsigned = new UnsecuredJWT(good()).encode();
    const asSecret = await sign(good(), { alg: 'HS256' }, new TextEncoder().encode(publicPem));
    for (const token of [unsigned, asSecret])
      await expect(verifier.verifyBearer(token)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('signed with a key of the sender is refused, also when the header brings that key along', async () => {
    const pair = await generateKeyPair('RS256', { extractable: true });
    const brought = await new SignJWT(good())
      .setProtectedHeader({ alg: 'RS256', jwk: await exportJWK(pair.publicKey), jku: `${internalUrl}/evil` })
      .sign(pair.privateKey);
    for (const token of [await sign(good(), {}, foreignKey), brought])
      await expect(verifier.verifyBearer(token)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('of no kind is accepted when no client is listed', async () => {
    await expect(createVerifier([]).verifyBearer(await sign(good()))).rejects.toMatchObject({
      code: 'unauthenticated',
    });
  });

  it('is not called bad while the keys of the realm cannot be had', async () => {
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

  it('of Keycloak tells which session is over', async () => {
    const claims = good();
    expect(await verifier.verifyLogoutToken(await sign(claims, header))).toEqual({
      userId: 'u1',
      keycloakSessionId: 's1',
      issuedAtMs: claims.iat * 1000,
      expiresAtMs: claims.exp * 1000,
      jti: 'j1',
    });
  });

  it('may name the user alone', async () => {
    const { sid: _sid, ...claims } = good();
    expect(await verifier.verifyLogoutToken(await sign(claims, header))).toMatchObject({
      userId: 'u1',
      keycloakSessionId: undefined,
    });
  });

  it.each<[string, Record<string, unknown>]>([
    ['from another issuer', { iss: 'https://keycloak.example/realms/master' }],
    ['for another client', { aud: 'another-client' }],
    ['that names nobody', { sub: undefined, sid: undefined }],
    ['without an id', { jti: undefined }],
    ['without the event', { events: undefined }],
    ['with another event', { events: { 'http://schemas.openid.net/event/other': {} } }],
    ['with an event that is no object', { events: { [LOGOUT_EVENT]: true } }],
    ['with a nonce, as ID tokens have one', { nonce: 'n' }],
    ['with an empty nonce', { nonce: null }],
    ['without its time', { iat: undefined }],
    ['without an end', { exp: undefined }],
    ['that has ended', { iat: nowS() - 130, exp: nowS() - 10 }],
    ['of long ago that claims to live on', { iat: nowS() - 3_600, exp: nowS() + 3_600 }],
  ])('%s does not count', async (_name, change) => {
    const token = await sign({ ...good(), ...change }, header);
    expect(await verifier.verifyLogoutToken(token)).toBeUndefined();
  });

  it('of another type, unsigned or signed by others does not count', async () => {
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
