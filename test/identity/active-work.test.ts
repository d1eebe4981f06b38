import { describe, expect, it } from '@jest/globals';
import type { Principal } from '../../src/http/principal.ts';
import { createActiveWork, type WorkEndReason } from '../../src/identity/active-work.ts';

function principalOf(userId: string, overrides: Partial<Principal> = {}): Principal {
  return {
    user: { id: userId, username: userId, email: null, name: null, tier: 'free' },
    credential: 'session',
    scopes: new Set(),
    token: null,
    sessionId: `row of ${userId}`,
    keycloakSessionId: `sid of ${userId}`,
    signedInAtMs: 1_000,
    ...overrides,
  };
}

function recorder() {
  const ended: string[] = [];
  return { ended, note: (name: string) => (reason: WorkEndReason) => void ended.push(`${name} ${reason}`) };
}

describe('active work', () => {
  it('is ended for one user only, and only once', () => {
    const activeWork = createActiveWork();
    const { ended, note } = recorder();
    activeWork.register(principalOf('a'), note('a'));
    activeWork.register(principalOf('b'), note('b'));
    activeWork.endUser('a');
    activeWork.endUser('a');
    expect(ended).toEqual(['a signed_out']);
  });

  it('of a token is ended with the token and with all work of its user, but by no sign-out', () => {
    const activeWork = createActiveWork();
    const { ended, note } = recorder();
    for (const id of ['one', 'two']) {
      const token = { id, models: null, keyIds: null };
      const credential = { credential: 'token', token, sessionId: null, keycloakSessionId: null } as const;
      activeWork.register(principalOf('a', credential), note(id));
    }
    activeWork.register(principalOf('a'), note('session'));
    activeWork.endUser('a', 2_000);
    activeWork.endAll(2_000);
    expect(ended).toEqual(['session signed_out']);
    activeWork.endToken('one');
    expect(ended).toEqual(['session signed_out', 'one signed_out']);
    activeWork.endUser('a');
    expect(ended).toEqual(['session signed_out', 'one signed_out', 'two signed_out']);
  });

  it('is ended when it needs a higher tier than its user now has', () => {
    const activeWork = createActiveWork();
    const { ended, note } = recorder();
    activeWork.register(principalOf('a'), note('starter'), { tier: 'starter' });
    activeWork.register(principalOf('a'), note('professional'), { tier: 'professional' });
    activeWork.register(principalOf('a'), note('any tier'));
    activeWork.register(principalOf('b'), note('of another user'), { tier: 'starter' });
    activeWork.endAboveTier('a', 'professional');
    expect(ended).toEqual([]);
    activeWork.endAboveTier('a', 'starter');
    expect(ended).toEqual(['professional tier_lowered']);
    for (const tier of ['trial', 'free'] as const) activeWork.endAboveTier('a', tier);
    expect(ended).toEqual(['professional tier_lowered', 'starter tier_lowered']);
  });

  it('is ended when it needs the role of operators and its user has lost it', () => {
    const activeWork = createActiveWork();
    const { ended, note } = recorder();
    activeWork.register(principalOf('a'), note('operator'), { tier: 'starter', operatorRole: true });
    activeWork.register(principalOf('a'), note('no role'), { tier: 'starter' });
    activeWork.register(principalOf('b'), note('of another operator'), {
      tier: 'starter',
      operatorRole: true,
    });
    expect(activeWork.operatorIds()).toEqual(['a', 'b']);
    activeWork.endOperatorWork('a');
    expect(ended).toEqual(['operator role_removed']);
  });

  it('is ended by app session, by Keycloak session, and by principal', () => {
    const activeWork = createActiveWork();
    const { ended, note } = recorder();
    const c = principalOf('c');
    for (const principal of [principalOf('a'), principalOf('b'), c, principalOf('d')])
      activeWork.register(principal, note(principal.user.id));
    activeWork.endSession('row of a');
    activeWork.endKeycloakSession('sid of b');
    activeWork.endPrincipal(c);
    expect(ended).toEqual(['a signed_out', 'b signed_out', 'c signed_out']);
  });

  it('of a sign-in after the time of a logout continues', () => {
    const activeWork = createActiveWork();
    const { ended, note } = recorder();
    activeWork.register(principalOf('a', { signedInAtMs: 1_000 }), note('before'));
    activeWork.register(principalOf('a', { signedInAtMs: 2_000 }), note('at'));
    activeWork.register(principalOf('a', { signedInAtMs: 3_000 }), note('after'));
    const { signedInAtMs: _unknown, ...timeless } = principalOf('a');
    activeWork.register(timeless, note('of unknown time'));
    activeWork.endUser('a', 2_000);
    expect(ended).toEqual(['before signed_out', 'at signed_out', 'of unknown time signed_out']);
    activeWork.endAll(3_000);
    expect(ended).toHaveLength(4);
  });

  it('that has finished is not ended', async () => {
    const activeWork = createActiveWork();
    const { ended, note } = recorder();
    const unregister = activeWork.register(principalOf('a'), note('a'));
    expect(activeWork.userIds()).toEqual(['a']);
    unregister();
    activeWork.endUser('a');
    expect(ended).toEqual([]);
    await activeWork.whenIdle();
  });

  it('is idle after the last work has finished', async () => {
    const activeWork = createActiveWork();
    await activeWork.whenIdle();
    const first = activeWork.register(principalOf('a'), () => undefined);
    const second = activeWork.register(principalOf('a'), () => undefined);
    let isIdle = false;
    const idle = activeWork.whenIdle().then(() => {
      isIdle = true;
    });
    first();
    await Promise.resolve();
    expect(isIdle).toBe(false);
    second();
    await idle;
  });

  it('is ended by drain, also if it is registered later', async () => {
    const activeWork = createActiveWork();
    const { ended, note } = recorder();
    const unregister = activeWork.register(principalOf('a'), (reason) => {
      note('a')(reason);
      unregister();
    });
    await activeWork.drain();
    await new Promise<void>((resolve) => {
      activeWork.register(principalOf('b'), (reason) => {
        note('b')(reason);
        resolve();
      });
    });
    expect(ended).toEqual(['a draining', 'b draining']);
  });
});
