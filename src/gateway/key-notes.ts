import { type KeyService } from '../keys/service.ts';
import { userOwner } from '../lib/owner.ts';
import type { GatewayDecision, GatewayKey } from './routing.ts';
import type { Work } from './upstream-calls.ts';

/** Notes what became of keys. Facts are worth less than the answer: a database that is away does not spoil it. */
export interface KeyNotes {
  /** In the background. */
  used(work: Work, key: UsedKey): void;
  /**
   * Before the answer, so that the next request already passes the key over. A key that was replaced while the
   * upstream thought about the old one is not blamed for it.
   */
  refused(work: Work, key: UsedKey): Promise<void>;
  /** Logs `key_undecryptable` and notes it for every damaged key of a decision, in the background. */
  damaged(work: Work, decision: GatewayDecision): void;
  /** Resolves when all notes under way are written. */
  settled(): Promise<void>;
}

type UsedKey = Pick<GatewayKey, 'provider' | 'id' | 'token'>;

export function createKeyNotes(
  keys: Pick<KeyService, 'isStored' | 'recordUse' | 'recordRefusal' | 'recordUndecryptable'>,
): KeyNotes {
  async function recordRefusal(work: Work, key: UsedKey): Promise<void> {
    const owner = userOwner(work.principal.user.id);
    if (await keys.isStored(owner, key)) await keys.recordRefusal(owner, key.provider, key.id);
  }

  const underWay = new Set<Promise<void>>();
  function note(work: Work, writing: Promise<void>): Promise<void> {
    const written = writing
      .catch((error: unknown) => {
        work.log.warn({ err: error }, 'a fact about a key could not be stored');
      })
      .finally(() => underWay.delete(written));
    underWay.add(written);
    return written;
  }
  return {
    used: (work, { provider, id }) =>
      void note(work, keys.recordUse(userOwner(work.principal.user.id), provider, id)),
    refused: (work, key) => note(work, recordRefusal(work, key)),
    damaged(work, decision) {
      if (!('skipped' in decision)) return;
      const { provider, skipped } = decision;
      for (const { keyId, reason } of skipped) {
        if (reason !== 'undecryptable') continue;
        const facts = { event: 'key_undecryptable', user: work.principal.user.id, provider, key_id: keyId };
        work.log.warn(facts, 'a stored key does not decrypt');
        void note(work, keys.recordUndecryptable(userOwner(work.principal.user.id), provider, keyId));
      }
    },
    settled: async () => {
      await Promise.all(underWay);
    },
  };
}
