import { rejectOnAbort } from '../async/reject-on-abort.ts';
import { createSemaphore, type Semaphore } from '../async/semaphore.ts';
import type { Owner } from '../owner.ts';
import { createChannelCount, type ChannelCount } from './channel-count.ts';
import type { SshConnection } from './connection.ts';
import { SshError } from './ssh-error.ts';

/** OpenSSH allows 10 sessions per connection (MaxSessions); two are reserved for cleanup. */
const MAX_CHANNELS_PER_CONNECTION = 8;
/** Handshakes to one server at a time. OpenSSH drops connections beyond MaxStartups, 10 by default and often less. */
const MAX_HANDSHAKES = 2;
/** While others are open or being opened. */
const MAX_FAILED_CONNECTIONS = 3;
const IDLE_MS = 5 * 60_000;

/** One of the channels that a connection may have. */
export interface ChannelSlot {
  connection: SshConnection;
  /** Call when the channel is open. */
  markOpen(): void;
  /**
   * Call when the server refused the channel: its connections get fewer channels. Also returns the slot.
   * @returns whether another slot may serve; false when the connection has never had a channel.
   */
  markRefused(): Promise<boolean>;
  /** Returns the slot. Further calls do nothing. */
  release(): void;
}

export interface SshConnectionPool {
  /**
   * Acquires a slot on a connection of this key, at most 8 per connection. Opens a connection if none has a free slot,
   * and waits for a slot when the server cannot be reached by a further one.
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

/** The connections of one key. */
interface ConnectionGroup {
  key: SshPoolKey;
  items: Set<PooledConnection>;
  /** Per connection. Smaller than the default after the server has refused channels. */
  maxChannels: number;
  handshakes: Semaphore;
  /** Resolved at the next release of a slot or end of a connection. */
  changed: PromiseWithResolvers<undefined>;
}

interface PooledConnection {
  group: ConnectionGroup;
  ready: Promise<SshConnection>;
  connection: SshConnection | undefined;
  controller: AbortController;
  channels: ChannelCount;
  isRetired: boolean;
  idle: NodeJS.Timeout | undefined;
}

export function createConnectionPool(): SshConnectionPool {
  const groups = new Map<string, ConnectionGroup>();
  const listItems = () => Array.from(groups.values(), ({ items }) => [...items]).flat();

  function getGroup(key: SshPoolKey): ConnectionGroup {
    const group = groups.get(key.text) ?? {
      ...{ key, items: new Set(), maxChannels: MAX_CHANNELS_PER_CONNECTION },
      ...{ handshakes: createSemaphore(MAX_HANDSHAKES), changed: Promise.withResolvers() },
    };
    groups.set(key.text, group);
    return group;
  }

  function reportChange(group: ConnectionGroup): void {
    group.changed.resolve(undefined);
    group.changed = Promise.withResolvers();
  }

  async function close(item: PooledConnection): Promise<void> {
    const { group } = item;
    group.items.delete(item);
    // Closed twice by the end of its connection, when the key may have another group.
    if (group.items.size === 0 && groups.get(group.key.text) === group) groups.delete(group.key.text);
    reportChange(group);
    clearTimeout(item.idle);
    item.controller.abort();
    const connection = await item.ready.catch(() => undefined);
    await connection?.close();
  }

  const remove = (item: PooledConnection) => void close(item);

  function add(group: ConnectionGroup, connect: Connect): PooledConnection {
    const controller = new AbortController();
    const item: PooledConnection = {
      group,
      controller,
      ready: connectInTurn(group.handshakes, connect, controller.signal),
      connection: undefined,
      channels: createChannelCount(),
      isRetired: false,
      idle: undefined,
    };
    group.items.add(item);
    item.ready.then(
      (connection) => {
        item.connection = connection;
        connection.onClose(() => remove(item));
      },
      () => remove(item),
    );
    return item;
  }

  function releaseSlot(item: PooledConnection): void {
    reportChange(item.group);
    if (!item.channels.isEmpty() || !item.group.items.has(item)) return;
    clearTimeout(item.idle);
    if (item.isRetired || item.controller.signal.aborted) remove(item);
    else item.idle = setTimeout(() => remove(item), IDLE_MS).unref();
  }

  function retireWhere(matches: (key: SshPoolKey) => boolean): void {
    for (const item of listItems()) {
      if (!matches(item.group.key)) continue;
      item.isRetired = true;
      if (item.channels.isEmpty()) remove(item);
    }
  }

  function findAvailable({ items, maxChannels }: ConnectionGroup): PooledConnection | undefined {
    return [...items].find(
      (item) => !item.isRetired && item.channels.hasRoom(maxChannels) && item.connection?.isOpen() !== false,
    );
  }

  async function acquireOn(item: PooledConnection, signal: AbortSignal): Promise<ChannelSlot> {
    const { group } = item;
    const channel = item.channels.add();
    clearTimeout(item.idle);
    const release = () => {
      if (channel.end()) releaseSlot(item);
    };
    try {
      const connection = await rejectOnAbort(item.ready, signal);
      return {
        connection,
        release,
        markOpen: () => channel.open(),
        async markRefused() {
          const { maxOpen, hasOpened } = await channel.refuse();
          group.maxChannels = Math.max(1, Math.min(group.maxChannels, maxOpen));
          // The server counts sessions whose channels have ended here. They may take long to end.
          if (maxOpen === 0) item.isRetired = true;
          releaseSlot(item);
          return hasOpened;
        },
      };
    } catch (error) {
      if (item.channels.isLast()) remove(item);
      release();
      throw error;
    }
  }

  return {
    async acquire(key, connect, signal) {
      for (let failures = 1; ; failures += 1) {
        signal.throwIfAborted();
        const group = getGroup(key);
        try {
          return await acquireOn(findAvailable(group) ?? add(group, connect), signal);
        } catch (error) {
          const isOffline = error instanceof SshError && error.failure === 'offline';
          if (!isOffline || failures === MAX_FAILED_CONNECTIONS || group.items.size === 0) throw error;
          while (group.items.size > 0 && findAvailable(group) === undefined)
            await rejectOnAbort(group.changed.promise, signal);
        }
      }
    },
    release: (serverId) => retireWhere(({ serverIds }) => serverIds.includes(serverId)),
    releaseOwner: (owner) => retireWhere((key) => key.owner === owner),
    listOwners: () => [...new Set(Array.from(groups.values(), ({ key }) => key.owner))],
    async close() {
      const countHops = (item: PooledConnection) => item.group.key.serverIds.length;
      const hops = [...new Set(listItems().map(countHops))].toSorted((a, b) => b - a);
      for (const count of hops)
        await Promise.all(
          listItems()
            .filter((item) => countHops(item) === count)
            .map(close),
        );
    },
  };
}

async function connectInTurn(
  handshakes: Semaphore,
  connect: Connect,
  signal: AbortSignal,
): Promise<SshConnection> {
  const release = await handshakes.acquire(signal);
  try {
    return await connect(signal);
  } finally {
    release();
  }
}
