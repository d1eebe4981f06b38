import type { User } from '../http/principal.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner, type Owner } from '../lib/owner.ts';
import type { OperatorUpstreams } from '../providers/address.ts';
import type { Provider } from '../providers/provider.ts';
import type { KeyReader } from './key-reader.ts';
import { needsEndpoint } from './provider-lookup.ts';
import { decryptKey, UNREADABLE_KEY_ID } from './stored-key.ts';
import type { KeyStats, KeyView, ProviderView } from './schema.ts';
import { keyStats, keyView, providerView, type KeyWithStatus } from './views.ts';

/** A stored key as the gateway uses it, still encrypted. */
export interface ProviderKey {
  id: string;
  provider: string;
  label: string | null;
  endpoint: string | null;
  enabled: boolean;
  expiresAt: string | null;
  cooldownUntil: Date | null;
  /** As stored in the vault. A replaced key has another token. */
  token: string;
  /** Undefined when no encryption key fits, the token was altered, or it was moved from where it was stored. */
  decrypt(): { secret: string; endpoint: string | null } | undefined;
}

export interface KeyReadsDeps {
  reader: KeyReader;
  keyring: Keyring;
  /** The providers available in this mode, in display order. */
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
}

/** What owners and the gateway read of stored keys. */
export interface KeyReads {
  listProviders(user: User): Promise<ProviderView[]>;
  /** Sorted by creation, then id. Decrypts nothing. */
  listKeys(user: User): Promise<KeyView[]>;
  stats(user: User): Promise<KeyStats>;
  /** The owner's stored keys by provider id, each pool sorted by creation, then id. Decrypts nothing. */
  readPools(owner: Owner): Promise<ReadonlyMap<string, readonly ProviderKey[]>>;
  /** Whether exactly this key is stored now: neither deleted nor replaced. Read without the cache. */
  isStored(owner: Owner, key: Pick<ProviderKey, 'provider' | 'id' | 'token'>): Promise<boolean>;
}

export function createKeyReads({ reader, keyring, providers, upstreams }: KeyReadsDeps): KeyReads {
  return {
    async listProviders(user) {
      const keys = await reader.readKeys(userOwner(user.id));
      return providers.map((provider) => {
        const providerKeys = keys.filter((key) => key.provider === provider);
        return providerView(provider, providerKeys.length, needsEndpoint(provider, upstreams));
      });
    },

    async listKeys(user) {
      const keys = await reader.readKeys(userOwner(user.id));
      return keys.map(keyView).sort(byCreation);
    },

    async stats(user) {
      return keyStats(user.tier, providers, await reader.readKeys(userOwner(user.id)));
    },

    async readPools(owner) {
      const { keys, unreadableProviders } = await reader.readPools(owner);
      const pools = Map.groupBy(
        keys.map((key) => toProviderKey(keyring, owner, key)),
        (key) => key.provider,
      );
      for (const provider of unreadableProviders)
        pools.set(provider, [...(pools.get(provider) ?? []), createUnreadableKey(provider)]);
      return pools;
    },

    async isStored(owner, { provider, id, token }) {
      const keys = await reader.readKeys(owner);
      return keys.some(
        (key) => key.provider.id === provider && key.stored.id === id && key.stored.token === token,
      );
    },
  };
}

function toProviderKey(
  keyring: Keyring,
  owner: Owner,
  { provider, stored, status }: KeyWithStatus,
): ProviderKey {
  const { id, label, endpoint, enabled, expiresAt, token } = stored;
  return {
    id,
    provider: provider.id,
    label,
    endpoint,
    enabled,
    expiresAt,
    cooldownUntil: status.cooldownUntil,
    token,
    decrypt: () => decryptKey(keyring, { owner, provider: provider.id }, stored),
  };
}

/**
 * Represents values that are not stored keys, most likely keys that were edited by hand. An owner with only such values
 * has a failing key, not no key: the system default must not pay silently.
 */
function createUnreadableKey(provider: string): ProviderKey {
  return {
    id: UNREADABLE_KEY_ID,
    provider,
    label: null,
    endpoint: null,
    enabled: true,
    expiresAt: null,
    cooldownUntil: null,
    token: '',
    decrypt: () => undefined,
  };
}

function byCreation(a: KeyView, b: KeyView): number {
  const [left, right] = a.added_date === b.added_date ? [a.id, b.id] : [a.added_date, b.added_date];
  return left < right ? -1 : 1;
}
