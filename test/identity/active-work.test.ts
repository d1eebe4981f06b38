import { describe, expect, it } from '@jest/globals';
import type { Principal } from '../../src/http/principal.ts';
import { createActiveWork, type WorkEndReason } from '../../src/identity/active-work.ts';

function principalOf(userId: string, own: Partial<Principal> = {}): Principal {
  return {
    user: { id: userId, username: userId, email: null, name: null, tier: 'free' },
    credential: 'session',
    scopes: new Set(),
    sessionId: `row of ${userId}`,
    keycloakSessionId: `sid of ${userId}`,
    signedInAtMs: 1_000,
    ...own,
  };
}

function recorder() {
  const ended: string[] = [];
  return { ended, note: (name: string) => (reason: WorkEndReason) => void ended.push(`${name} ${reason}`) };
}

describe('live work', () => {
  it('ends for one user and no other, once', () => {
    const liveWork = createActiveWork();
    const { ended, note } = recorder();
    liveWork.register(principalOf('a'), note('a'));
    liveWork.register(principalOf('b'), note('b'));
    liveWork.endUser('a');
    liveWork.endUser('a');
    expect(ended).toEqual(['a signed_out']);
  });

  it('ends by our session, by the session of Keycloak, and by principal', () => {
    const liveWork = createActiveWork();
    const { ended, note } = recorder();
    const c = principalOf('c');
    for (const principal of [principalOf('a'), principalOf('b'), c, principalOf('d')])
      liveWork.register(principal, note(principal.user.id));
    liveWork.endSession('row of a');
    liveWork.endKeycloakSession('sid of b');
    liveWork.endPrincipal(c);
    expect(ended).toEqual(['a signed_out', 'b signed_out', 'c signed_out']);
  });

  it('of a later sign-in lives on when a logout names an earlier time', () => {
    const liveWork = createActiveWork();
    const { ended, note } = recorder();
    liveWork.register(principalOf('a', { signedInAtMs: 1_000 }), note('before'));
    liveWork.register(principalOf('a', { signedInAtMs: 2_000 }), note('at'));
    liveWork.register(principalOf('a', { signedInAtMs: 3_000 }), note('after'));
    const { signedInAtMs: _unknown, ...timeless } = principalOf('a');
    liveWork.register(timeless, note('of unknown time'));
    liveWork.endUser('a', 2_000);
    expect(ended).toEqual(['before signed_out', 'at signed_out', 'of unknown time signed_out']);
    liveWork.endAll(3_000);
    expect(ended).toHaveLength(4);
  });

  it('that is over is not ended any more', () => {
    const liveWork = createActiveWork();
    const { ended, note } = recorder();
    const unregister = liveWork.register(principalOf('a'), note('a'));
    expect(liveWork.userIds()).toEqual(['a']);
    unregister();
    liveWork.endUser('a');
    expect(ended).toEqual([]);
    expect(liveWork.size).toBe(0);
  });

  it('is waited for until the last of it is over', async () => {
    const liveWork = createActiveWork();
    await liveWork.whenIdle();
    const first = liveWork.register(principalOf('a'), () => undefined);
    const second = liveWork.register(principalOf('a'), () => undefined);
    let isIdle = false;
    const idle = liveWork.whenIdle().then(() => {
      isIdle = true;
    });
    first();
    await Promise.resolve();
    expect(isIdle).toBe(false);
    second();
    await idle;
  });

  it('drains: everything ends, what comes later too', async () => {
    const liveWork = createActiveWork();
    const { ended, note } = recorder();
    const unregister = liveWork.register(principalOf('a'), (reason) => {
      note('a')(reason);
      unregister();
    });
    await liveWork.drain();
    await new Promise<void>((resolve) => {
      liveWork.register(principalOf('b'), (reason) => {
        note('b')(reason);
        resolve();
      });
    });
    expect(ended).toEqual(['a draining', 'b draining']);
  });
});
