import { isTierAtLeast, type Tier } from '../config/tiers.ts';
import { drainingError } from '../http/draining-error.ts';
import type { Principal } from '../http/principal.ts';
import { operatorRoleRequired, tierRequired, unauthenticated, type AppError } from '../lib/errors.ts';

/**
 * Why active work is ended. `signed_out`: its credential is no longer valid, because the user signed out, was disabled or
 * deleted, the session has expired, or the token was revoked or has expired. `tier_lowered`: it needs a higher tier than the user now has. `role_removed`: it
 * needs the role `ops-operator`, which the user no longer has.
 */
export type WorkEndReason = 'signed_out' | 'tier_lowered' | 'role_removed' | 'draining';

/** What work needs in addition to a valid sign-in. */
export interface WorkNeeds {
  /** This tier or a higher one. */
  tier?: Tier | undefined;
  /** The role `ops-operator`. */
  operatorRole?: boolean;
}

/** Ends work. @param error what the client receives. */
export type EndWork = (reason: WorkEndReason, error: AppError) => void;

/**
 * Streams and other work that continues after its request was authorized. `logout.ts` ends it when a user signs out,
 * is disabled or is deleted, as `keycloak-events.ts` reports, which ends it for a lowered tier as well;
 * `active-work-check.ts` ends what no event has reported.
 */
export interface ActiveWork {
  /**
   * Registers work for the principal that started it. `end` is called at most once and must not throw.
   * @param needs the work ends when the user no longer has it.
   * @returns function that unregisters the work; call it when the work has finished.
   */
  register(principal: Principal, end: EndWork, needs?: WorkNeeds): () => void;
  /** Ends the work of a user. With a time (Keycloak's clock, epoch ms), only work of sign-ins up to then. */
  endUser(userId: string, signedInNotAfterMs?: number): void;
  /** Ends the work of a user that needs a higher tier than this one. */
  endAboveTier(userId: string, tier: Tier): void;
  /** Ends the work of a user that needs the role `ops-operator`. */
  endOperatorWork(userId: string): void;
  /** Users with work that needs the role `ops-operator`, without duplicates. */
  operatorIds(): string[];
  /** Ends the work of all sign-ins up to a time (Keycloak's clock, epoch ms). */
  endAll(signedInNotAfterMs: number): void;
  /** Ends the work of this principal object only. */
  endPrincipal(principal: Principal): void;
  /** Ends the work of an app session, by the id of its row. */
  endSession(sessionId: string): void;
  /** Ends the work of a Keycloak session, by its `sid`. */
  endKeycloakSession(keycloakSessionId: string): void;
  /** Ends the work of a personal token. */
  endToken(tokenId: string): void;
  /** Principals with active work, without duplicates. */
  principals(): Principal[];
  userIds(): string[];
  /** Resolves when there is no active work; immediately if there is none now. */
  whenIdle(): Promise<void>;
  /** Ends all active work and all work registered later with `draining`. Resolves when none is left. */
  drain(): Promise<void>;
}

interface WorkItem {
  principal: Principal;
  end: EndWork;
  needs: WorkNeeds;
  ended: boolean;
}

export function createActiveWork(): ActiveWork {
  const items = new Set<WorkItem>();
  let idleWaiters: (() => void)[] = [];
  let draining = false;

  function endWhere(matches: (principal: Principal) => boolean): void {
    for (const item of [...items])
      if (matches(item.principal)) endItem(item, 'signed_out', unauthenticated());
  }

  function remove(item: WorkItem): void {
    item.ended = true;
    items.delete(item);
    if (items.size > 0) return;
    for (const resolve of idleWaiters) resolve();
    idleWaiters = [];
  }

  function whenIdle(): Promise<void> {
    if (items.size === 0) return Promise.resolve();
    return new Promise((resolve) => idleWaiters.push(resolve));
  }

  return {
    register(principal, onEnd, needs = {}) {
      const item: WorkItem = { principal, end: onEnd, needs, ended: false };
      items.add(item);
      // Deferred, so that the caller has received the unregister function before `end` is called.
      if (draining)
        queueMicrotask(() => {
          endItem(item, 'draining', drainingError());
        });
      return () => {
        remove(item);
      };
    },
    ...createEndMethods(endWhere),
    endAboveTier(userId, tier) {
      for (const item of [...items]) {
        const needed = item.needs.tier;
        if (item.principal.user.id === userId && needed !== undefined && !isTierAtLeast(tier, needed))
          endItem(item, 'tier_lowered', tierRequired(needed, tier));
      }
    },
    endOperatorWork(userId) {
      for (const item of listOperatorWork(items))
        if (item.principal.user.id === userId) endItem(item, 'role_removed', operatorRoleRequired());
    },
    operatorIds: () => [...new Set(listOperatorWork(items).map((item) => item.principal.user.id))],
    principals: () => [...new Set([...items].map((item) => item.principal))],
    userIds: () => [...new Set([...items].map((item) => item.principal.user.id))],
    whenIdle,
    drain() {
      draining = true;
      for (const item of [...items]) endItem(item, 'draining', drainingError());
      return whenIdle();
    },
  };
}

type EndMethods = Pick<
  ActiveWork,
  'endUser' | 'endAll' | 'endPrincipal' | 'endSession' | 'endKeycloakSession' | 'endToken'
>;

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
    endToken: (id) => {
      endWhere((principal) => principal.token?.id === id);
    },
  };
}

function listOperatorWork(items: Iterable<WorkItem>): WorkItem[] {
  return [...items].filter(({ needs }) => needs.operatorRole);
}

function endItem(item: WorkItem, reason: WorkEndReason, error: AppError): void {
  if (item.ended) return;
  item.ended = true;
  item.end(reason, error);
}

/**
 * A sign-in with an unknown time counts as the oldest, so that its work is always ended. A personal token is not a
 * sign-in: no logout ends its work, only the end of all work of its user.
 */
function signedInAt(principal: Principal): number {
  return principal.token === null ? (principal.signedInAtMs ?? 0) : Infinity;
}
