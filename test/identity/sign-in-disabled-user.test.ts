import { describe, expect, it } from '@jest/globals';
import type { Request, Response } from 'express';
import { createSignInFlow, type SignInFlowDeps } from '../../src/identity/sign-in.ts';

/**
 * Keycloak itself redeems no code of a disabled user. What is checked here is the moment after: the parts
 * around the sign-in are scripted, since no real server can be made to stop in between.
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
    loginStates: { consume: () => ({ returnTo: 'http://localhost:3000/' }) },
    oidc: { finishSignIn: () => Promise.resolve(signedIn) },
    userCache: {
      invalidate: (id: string) => void calls.push(`forget ${id}`),
      findUser(id: string) {
        calls.push(`find ${id}`);
        return Promise.resolve(undefined);
      },
    },
    sessions: {
      find: () => Promise.resolve(undefined),
      replace: () => void calls.push('session made'),
    },
  } as unknown as SignInFlowDeps;
  const request = { query: { state: 'x' }, originalUrl: '/auth/callback?state=x' } as unknown as Request;
  return { calls, complete: () => createSignInFlow(deps).complete(request, {} as Response) };
}

describe('completing a sign-in', () => {
  it('makes no session for a user who is missing or disabled now, whatever was known of them before', async () => {
    const { calls, complete } = setUp();
    await expect(complete()).rejects.toMatchObject({ code: 'unauthenticated' });
    expect(calls).toEqual(['forget u1', 'find u1']);
  });
});
