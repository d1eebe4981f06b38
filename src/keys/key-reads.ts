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

/** A stored key as the gateway uses it: still sealed. */
export interface ProviderKey {
  id: string;
  provider: string;
  label: string | null;
  endpoint: string | null;
  enabled: boolean;
  expiresAt: string | null;
  cooldownUntil: Date | null;
  /** As it lies in the vault: by it a key that was replaced is told from the one before. */
  token: string;
  /** Decrypts; undefined when no key fits, the token was altered, or it lies where it was not put. */
  decrypt(): { secret: string; endpoint: string | null } | undefined;
}

export interface KeyReadsDeps {
  reader: KeyReader;
  keyring: Keyring;
  /** The providers on offer in this mode, in the order in which people see them. */
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
}

/** What owners and the gateway read of stored keys. */
export interface KeyReads {
  listProviders(user: User): Promise<ProviderView[]>;
  /** By creation, then id. Decrypts nothing. */
  listKeys(user: User): Promise<KeyView[]>;
  stats(user: User): Promise<KeyStats>;
  /** Every stored key of the owner by provider id, each pool by creation, then id. Decrypts nothing. */
  readPools(owner: Owner): Promise<ReadonlyMap<string, readonly ProviderKey[]>>;
  /** Whether this very key is stored now, past everything that is remembered: not deleted, not replaced. */
  isStored(owner: Owner, key: Pick<ProviderKey, 'provider' | 'id' | 'token'>): Promise<boolean>;
}

export function createKeyReads({ reader, keyring, providers, upstreams }: KeyReadsDeps): KeyReads {
  return {
    async listProviders(user) {
      const keys = await reader.readKeys(userOwner(user.id));
      return providers.map((provider) => {
        const own = keys.filter((key) => key.provider === provider);
        return providerView(provider, own.length, needsEndpoint(provider, upstreams));
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
      const { keys, unreadableProviders: damaged } = await reader.readPools(owner);
      const pools = Map.groupBy(
        keys.map((key) => toProviderKey(keyring, owner, key)),
        (key) => key.provider,
      );
      for (const provider of damaged)
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
  { provider, stored, status: facts }: KeyWithStatus,
): ProviderKey {
  const { id, label, endpoint, enabled, expiresAt, token } = stored;
  return {
    id,
    provider: provider.id,
    label,
    endpoint,
    enabled,
    expiresAt,
    cooldownUntil: facts.cooldownUntil,
    token,
    decrypt: () => decryptKey(keyring, { owner, provider: provider.id }, stored),
  };
}

/**
 * Stands for what lies where keys lie and is none, most likely a key that was edited by hand. An owner who had
 * only that has a key that fails, not no key: the system must not pay for it silently.
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
