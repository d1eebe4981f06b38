import type { Principal } from '../http/principal.ts';

/** Why work is ended from outside. */
export type WorkEndReason = 'signed_out' | 'draining';

/** Streams and other work that outlives the moment in which its caller was admitted. */
export interface ActiveWork {
  /**
   * Registers work under the principal that started it. `end` is called at most once and must not throw.
   * @returns the function that takes it off the list again; call it when the work is over.
   */
  register(principal: Principal, end: (reason: WorkEndReason) => void): () => void;
  /** Ends all work of a user, or only that of sign-ins not after a time (Keycloak's, epoch ms). */
  endUser(userId: string, signedInNotAfterMs?: number): void;
  /** Ends the work of everybody who signed in not after a time (Keycloak's, epoch ms). */
  endAll(signedInNotAfterMs: number): void;
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
  whenIdle(): Promise<void>;
  /** Ends everything, and all that is registered from now on, with `draining`; resolves when it is gone. */
  drain(): Promise<void>;
}

interface WorkItem {
  principal: Principal;
  end: (reason: WorkEndReason) => void;
  ended: boolean;
}

/** Builds an empty register. */
export function createActiveWork(): ActiveWork {
  const items = new Set<WorkItem>();
  let idleWaiters: (() => void)[] = [];
  let draining = false;

  function endWhere(matches: (principal: Principal) => boolean): void {
    for (const item of [...items]) if (matches(item.principal)) endItem(item, 'signed_out');
  }

  function remove(item: WorkItem): void {
    item.ended = true;
    items.delete(item);
    if (items.size > 0) return;
    for (const resolve of idleWaiters) resolve();
    idleWaiters = [];
  }

  function idle(): Promise<void> {
    if (items.size === 0) return Promise.resolve();
    return new Promise((resolve) => idleWaiters.push(resolve));
  }

  return {
    register(principal, onEnd) {
      const item: WorkItem = { principal, end: onEnd, ended: false };
      items.add(item);
      // Later, so that the caller has the function to unregister before it is told to end.
      if (draining)
        queueMicrotask(() => {
          endItem(item, 'draining');
        });
      return () => {
        remove(item);
      };
    },
    ...createEndMethods(endWhere),
    principals: () => [...new Set([...items].map((item) => item.principal))],
    userIds: () => [...new Set([...items].map((item) => item.principal.user.id))],
    get size() {
      return items.size;
    },
    whenIdle: idle,
    drain() {
      draining = true;
      for (const item of [...items]) endItem(item, 'draining');
      return idle();
    },
  };
}

type EndMethods = Pick<
  ActiveWork,
  'endUser' | 'endAll' | 'endPrincipal' | 'endSession' | 'endKeycloakSession'
>;

/** Whose work ends: every way of naming it. */
function createEndMethods(endWhere: (matches: (principal: Principal) => boolean) => void): EndMethods {
  return {
    endUser: (userId, notAfterMs = Infinity) => {
      endWhere((principal) => principal.user.id === userId && signedInAt(principal) <= notAfterMs);
    },
    endAll: (notAfterMs) => {
      endWhere((principal) => signedInAt(principal) <= notAfterMs);
    },
    endPrincipal: (target) => {
      endWhere((principal) => principal === target);
    },
    endSession: (id) => {
      endWhere((principal) => principal.sessionId === id);
    },
    endKeycloakSession: (id) => {
      endWhere((principal) => principal.keycloakSessionId === id);
    },
  };
}

function endItem(item: WorkItem, reason: WorkEndReason): void {
  if (item.ended) return;
  item.ended = true;
  item.end(reason);
}

/** A sign-in of unknown time counts as the oldest: in doubt its work is ended. */
function signedInAt(principal: Principal): number {
  return principal.signedInAtMs ?? 0;
}
