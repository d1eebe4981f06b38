import { describe, expect, it } from '@jest/globals';
import type { Request, Response } from 'express';
import { createSignInFlow, type SignInFlowDeps } from '../../src/identity/sign-in.ts';

/**
 * Keycloak refuses the code of a disabled user. This test covers a user that is disabled after the code was redeemed.
 * It uses doubles, because no real server can be stopped between these two steps.
 */
function setUp() {
  const calls: string[] = [];
  const signedIn = {
    userId: 'u1',
    keycloakSessionId: 's1',
    signedInAtMs: 1,
    idToken: 'a',
    refreshToken: 'b',
    refreshAtMs: 2,
  };
  const deps = {
    publicUrl: 'http://localhost:3000',
    loginStates: { consume: () => ({ returnTo: '/' }) },
    oidc: { finishSignIn: () => Promise.resolve(signedIn) },
    userCache: {
      invalidate: (id: string) => void calls.push(`invalidate ${id}`),
      findUser(id: string) {
        calls.push(`find ${id}`);
        return Promise.resolve(undefined);
      },
    },
    sessions: {
      refuseSeveral: () => Promise.resolve(),
      find: () => Promise.resolve(undefined),
      replace: () => void calls.push('session created'),
    },
  } as unknown as SignInFlowDeps;
  const request = { query: { state: 'x' }, originalUrl: '/auth/callback?state=x' } as unknown as Request;
  return { calls, complete: () => createSignInFlow(deps).complete(request, {} as Response) };
}

describe('completing a sign-in', () => {
  it('creates no session for a user that is missing or disabled now, even if the cached user is valid', async () => {
    const { calls, complete } = setUp();
    await expect(complete()).rejects.toMatchObject({ code: 'unauthenticated' });
    expect(calls).toEqual(['invalidate u1', 'find u1']);
  });
});
