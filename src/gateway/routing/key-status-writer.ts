import { type KeyService } from '../../keys/service.ts';
import { userOwner } from '../../lib/owner.ts';
import type { GatewayDecision, GatewayKey } from './routing.ts';
import type { GatewayCall } from '../upstream/calls.ts';

/** Notes what became of keys. Facts are worth less than the answer: a database that is away does not spoil it. */
export interface KeyStatusWriter {
  /** In the background. */
  writeUse(call: GatewayCall, key: KeyReference): void;
  /**
   * Before the answer, so that the next request already passes the key over. A key that was replaced while the
   * upstream thought about the old one is not blamed for it.
   */
  writeRefusal(call: GatewayCall, key: KeyReference): Promise<void>;
  /** Logs `key_undecryptable` and notes it for every damaged key of a decision, in the background. */
  writeUndecryptable(call: GatewayCall, decision: GatewayDecision): void;
  /** Resolves when all notes under way are written. */
  flush(): Promise<void>;
}

type KeyReference = Pick<GatewayKey, 'provider' | 'id' | 'token'>;

export function createKeyStatusWriter(
  keys: Pick<KeyService, 'isStored' | 'recordUse' | 'recordRefusal' | 'recordUndecryptable'>,
): KeyStatusWriter {
  async function writeRefusalIfStored(call: GatewayCall, key: KeyReference): Promise<void> {
    const owner = userOwner(call.principal.user.id);
    if (await keys.isStored(owner, key)) await keys.recordRefusal(owner, key.provider, key.id);
  }

  const pending = new Set<Promise<void>>();
  function track(call: GatewayCall, write: Promise<void>): Promise<void> {
    const tracked = write
      .catch((error: unknown) => {
        call.log.warn({ err: error }, 'a fact about a key could not be stored');
      })
      .finally(() => pending.delete(tracked));
    pending.add(tracked);
    return tracked;
  }
  return {
    writeUse: (call, { provider, id }) =>
      void track(call, keys.recordUse(userOwner(call.principal.user.id), provider, id)),
    writeRefusal: (call, key) => track(call, writeRefusalIfStored(call, key)),
    writeUndecryptable(call, decision) {
      if (!('skipped' in decision)) return;
      const { provider, skipped } = decision;
      for (const { keyId, reason } of skipped) {
        if (reason !== 'undecryptable') continue;
        const fields = { event: 'key_undecryptable', user: call.principal.user.id, provider, key_id: keyId };
        call.log.warn(fields, 'a stored key does not decrypt');
        void track(call, keys.recordUndecryptable(userOwner(call.principal.user.id), provider, keyId));
      }
    },
    flush: async () => {
      await Promise.all(pending);
    },
  };
}
