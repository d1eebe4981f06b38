import type { KeyService } from '../../keys/service.ts';
import { userOwner } from '../../lib/owner.ts';
import type { GatewayDecision, GatewayKey } from './routing.ts';
import type { GatewayCall } from '../upstream/calls.ts';

/** Writes the status of keys after use. A failed write is logged and never fails the request. */
export interface KeyStatusWriter {
  /** Runs in the background. */
  writeUse(call: GatewayCall, key: KeyReference): void;
  /**
   * Completes before the response is sent, so that the next request already skips the key. Does nothing when the
   * key was replaced while the upstream processed the request.
   */
  writeRefusal(call: GatewayCall, key: KeyReference): Promise<void>;
  /** Logs `key_undecryptable` and writes the status of every undecryptable key of a decision, in the background. */
  writeUndecryptable(call: GatewayCall, decision: GatewayDecision): void;
  /** Resolves when all pending writes have ended. */
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
        call.log.warn({ err: error }, 'key status could not be written');
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
        call.log.warn(fields, 'a stored key cannot be decrypted');
        void track(call, keys.recordUndecryptable(userOwner(call.principal.user.id), provider, keyId));
      }
    },
    flush: async () => {
      await Promise.all(pending);
    },
  };
}
