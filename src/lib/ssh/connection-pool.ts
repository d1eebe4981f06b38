import { rejectOnAbort } from '../async/reject-on-abort.ts';
import type { Owner } from '../owner.ts';
import type { SshConnection } from './connection.ts';

/** OpenSSH allows 10 sessions per connection (MaxSessions); two are reserved for cleanup. */
const MAX_CHANNELS_PER_CONNECTION = 8;
const IDLE_MS = 5 * 60_000;

/** One of the channels that a connection may have. */
export interface ChannelSlot {
  connection: SshConnection;
  /** Returns the slot. Further calls do nothing. */
  release(): void;
  /** Call when the server refused a channel: the connection gets no further channels until it is idle. */
  markFull(): void;
}

export interface SshConnectionPool {
  /**
   * Acquires a slot on a connection of this key, at most 8 per connection. Opens a connection if none has a free slot.
   * @param connect its signal is aborted when every caller that waited for the connection has aborted.
   */
  acquire(key: SshPoolKey, connect: Connect, signal: AbortSignal): Promise<ChannelSlot>;
  /** Closes the connections to and through a server; those in use close when their last channel ends. */
  release(serverId: string): void;
  /** The same for all servers of an owner. */
  releaseOwner(owner: Owner): void;
  /** Owners with open connections, in use or not. */
  listOwners(): Owner[];
  /** Closes all connections, those through others first. Resolves when they are closed. */
  close(): Promise<void>;
}

export interface SshPoolKey {
  /** Equal for the same owner, hops, versions and host keys. */
  text: string;
  owner: Owner;
  serverIds: readonly string[];
}

type Connect = (signal: AbortSignal) => Promise<SshConnection>;

interface PooledConnection {
  key: SshPoolKey;
  ready: Promise<SshConnection>;
  connection: SshConnection | undefined;
  controller: AbortController;
  slots: number;
  maxSlots: number;
  isRetired: boolean;
  idle: NodeJS.Timeout | undefined;
}

export function createConnectionPool(): SshConnectionPool {
  const pooled = new Set<PooledConnection>();

  async function close(item: PooledConnection): Promise<void> {
    pooled.delete(item);
    clearTimeout(item.idle);
    item.controller.abort();
    const connection = await item.ready.catch(() => undefined);
    await connection?.close();
  }

  const remove = (item: PooledConnection) => void close(item);

  function add(key: SshPoolKey, connect: Connect): PooledConnection {
    const controller = new AbortController();
    const item: PooledConnection = {
      key,
      controller,
      ready: connect(controller.signal),
      connection: undefined,
      slots: 0,
      maxSlots: MAX_CHANNELS_PER_CONNECTION,
      isRetired: false,
      idle: undefined,
    };
    pooled.add(item);
    item.ready.then(
      (connection) => {
        item.connection = connection;
        connection.onClose(() => remove(item));
      },
      () => remove(item),
    );
    return item;
  }

  function release(item: PooledConnection): void {
    item.slots -= 1;
    if (item.slots > 0 || !pooled.has(item)) return;
    item.maxSlots = MAX_CHANNELS_PER_CONNECTION;
    if (item.isRetired || item.controller.signal.aborted) remove(item);
    else item.idle = setTimeout(() => remove(item), IDLE_MS).unref();
  }

  function retireWhere(matches: (key: SshPoolKey) => boolean): void {
    for (const item of pooled) {
      if (!matches(item.key)) continue;
      item.isRetired = true;
      if (item.slots === 0) remove(item);
    }
  }

  function findAvailable(key: SshPoolKey): PooledConnection | undefined {
    return [...pooled].find(
      (item) =>
        item.key.text === key.text &&
        !item.isRetired &&
        item.slots < item.maxSlots &&
        item.connection?.isOpen() !== false,
    );
  }

  return {
    async acquire(key, connect, signal) {
      signal.throwIfAborted();
      const item = findAvailable(key) ?? add(key, connect);
      item.slots += 1;
      clearTimeout(item.idle);
      let isReleased = false;
      const releaseOnce = () => {
        if (!isReleased) release(item);
        isReleased = true;
      };
      let isReady = false;
      try {
        const connection = await rejectOnAbort(item.ready, signal);
        isReady = true;
        return {
          connection,
          release: releaseOnce,
          markFull: () => {
            item.maxSlots = Math.max(1, item.slots - 1);
          },
        };
      } finally {
        if (!isReady) {
          if (item.slots === 1) remove(item);
          releaseOnce();
        }
      }
    },
    release: (serverId) => retireWhere(({ serverIds }) => serverIds.includes(serverId)),
    releaseOwner: (owner) => retireWhere((key) => key.owner === owner),
    listOwners: () => [...new Set(Array.from(pooled, ({ key }) => key.owner))],
    async close() {
      const hops = [...new Set(Array.from(pooled, ({ key }) => key.serverIds.length))].toSorted(
        (a, b) => b - a,
      );
      for (const count of hops)
        await Promise.all([...pooled].filter(({ key }) => key.serverIds.length === count).map(close));
    },
  };
}
