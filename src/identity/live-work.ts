import type { Principal } from '../http/principal.ts';

/** Why work is ended from outside. */
export type EndReason = 'signed_out' | 'draining';

/** Streams and other work that outlives the moment in which its caller was admitted. */
export interface LiveWork {
  /**
   * Registers work under the principal that started it. `end` is called at most once and must not throw.
   * @returns the function that takes it off the list again; call it when the work is over.
   */
  register(principal: Principal, end: (reason: EndReason) => void): () => void;
  /** Ends all work of a user, or only that of sign-ins not after a time (Keycloak's, epoch ms). */
  endUser(userId: string, signedInNotAfterMs?: number): void;
  /** Ends the work of everybody who signed in not after a time (Keycloak's, epoch ms). */
  endEveryone(signedInNotAfterMs: number): void;
  /** Ends the work of exactly this principal. */
  endPrincipal(principal: Principal): void;
  /** Ends the work of one of our sessions, by the id of its row. */
  endSession(sessionId: string): void;
  /** Ends the work of a session of Keycloak, by its `sid`. */
  endKeycloakSession(keycloakSessionId: string): void;
  /** Everyone who has work running, each once. */
  principals(): Principal[];
  userIds(): string[];
  readonly size: number;
  /** Resolves when nothing runs any more, at once if nothing does. */
  idle(): Promise<void>;
  /** Ends everything, and all that is registered from now on, with `draining`; resolves when it is gone. */
  drain(): Promise<void>;
}

interface Entry {
  principal: Principal;
  end: (reason: EndReason) => void;
  ended: boolean;
}

/** Builds an empty register. */
export function createLiveWork(): LiveWork {
  const entries = new Set<Entry>();
  let waiting: (() => void)[] = [];
  let draining = false;

  function endWhere(matches: (principal: Principal) => boolean): void {
    for (const entry of [...entries]) if (matches(entry.principal)) end(entry, 'signed_out');
  }

  function remove(entry: Entry): void {
    entry.ended = true;
    entries.delete(entry);
    if (entries.size > 0) return;
    for (const resolve of waiting) resolve();
    waiting = [];
  }

  function idle(): Promise<void> {
    if (entries.size === 0) return Promise.resolve();
    return new Promise((resolve) => waiting.push(resolve));
  }

  return {
    register(principal, onEnd) {
      const entry: Entry = { principal, end: onEnd, ended: false };
      entries.add(entry);
      // Later, so that the caller has the function to unregister before it is told to end.
      if (draining)
        queueMicrotask(() => {
          end(entry, 'draining');
        });
      return () => {
        remove(entry);
      };
    },
    ...endings(endWhere),
    principals: () => [...new Set([...entries].map((entry) => entry.principal))],
    userIds: () => [...new Set([...entries].map((entry) => entry.principal.user.id))],
    get size() {
      return entries.size;
    },
    idle,
    drain() {
      draining = true;
      for (const entry of [...entries]) end(entry, 'draining');
      return idle();
    },
  };
}

type Endings = Pick<
  LiveWork,
  'endUser' | 'endEveryone' | 'endPrincipal' | 'endSession' | 'endKeycloakSession'
>;

/** Whose work ends: every way of naming it. */
function endings(endWhere: (matches: (principal: Principal) => boolean) => void): Endings {
  return {
    endUser: (userId, notAfterMs = Infinity) => {
      endWhere((principal) => principal.user.id === userId && signedInAt(principal) <= notAfterMs);
    },
    endEveryone: (notAfterMs) => {
      endWhere((principal) => signedInAt(principal) <= notAfterMs);
    },
    endPrincipal: (own) => {
      endWhere((principal) => principal === own);
    },
    endSession: (id) => {
      endWhere((principal) => principal.sessionId === id);
    },
    endKeycloakSession: (id) => {
      endWhere((principal) => principal.keycloakSessionId === id);
    },
  };
}

function end(entry: Entry, reason: EndReason): void {
  if (entry.ended) return;
  entry.ended = true;
  entry.end(reason);
}

/** A sign-in of unknown time counts as the oldest: in doubt its work is ended. */
function signedInAt(principal: Principal): number {
  return principal.signedInAtMs ?? 0;
}
