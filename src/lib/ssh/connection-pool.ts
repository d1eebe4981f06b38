import type { SshConnection } from './connection.ts';

/** OpenSSH allows 10 sessions per connection (MaxSessions); two are left for looking after the others. */
const MAX_CHANNELS_PER_CONNECTION = 8;
const IDLE_MS = 5 * 60_000;

/** A place on a connection. */
export interface ChannelSlot {
  connection: SshConnection;
  /** Gives the place back; further calls do nothing. */
  release(): void;
  /** The server refused a channel here: nobody else is sent to this connection while others use it. */
  markFull(): void;
}

export interface ConnectionPool {
  /**
   * A place on a connection of this key, at most 8 on each; a new one is made where there is none.
   * @param connect is aborted when all who waited for it have left.
   */
  acquire(key: SshPoolKey, connect: Connect, signal: AbortSignal): Promise<ChannelSlot>;
  /** Idle connections that touch the server are closed; those in use are, when their last channel ends. */
  forget(serverId: string): void;
  close(): void;
}

export interface SshPoolKey {
  /** Equal only where owner, hops, versions and host keys are. */
  text: string;
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

/** Keeps connections for their next use. */
export function createConnectionPool(): ConnectionPool {
  const entries = new Set<PooledConnection>();

  function remove(entry: PooledConnection): void {
    entries.delete(entry);
    clearTimeout(entry.idle);
    entry.controller.abort();
    entry.ready.then(
      (connection) => connection.close(),
      () => undefined,
    );
  }

  function add(key: SshPoolKey, connect: Connect): PooledConnection {
    const controller = new AbortController();
    const entry: PooledConnection = {
      key,
      controller,
      ready: connect(controller.signal),
      connection: undefined,
      slots: 0,
      maxSlots: MAX_CHANNELS_PER_CONNECTION,
      isRetired: false,
      idle: undefined,
    };
    entries.add(entry);
    entry.ready.then(
      (connection) => {
        entry.connection = connection;
        connection.onClose(() => remove(entry));
      },
      () => remove(entry),
    );
    return entry;
  }

  function release(entry: PooledConnection): void {
    entry.slots -= 1;
    if (entry.slots > 0 || !entries.has(entry)) return;
    entry.maxSlots = MAX_CHANNELS_PER_CONNECTION;
    if (entry.isRetired || entry.controller.signal.aborted) remove(entry);
    else entry.idle = setTimeout(() => remove(entry), IDLE_MS).unref();
  }

  function findAvailable(key: SshPoolKey): PooledConnection | undefined {
    return [...entries].find(
      (entry) =>
        entry.key.text === key.text &&
        !entry.isRetired &&
        entry.slots < entry.maxSlots &&
        entry.connection?.isOpen() !== false,
    );
  }

  return {
    async acquire(key, connect, signal) {
      signal.throwIfAborted();
      const entry = findAvailable(key) ?? add(key, connect);
      entry.slots += 1;
      clearTimeout(entry.idle);
      let isReleased = false;
      const releaseOnce = () => {
        if (!isReleased) release(entry);
        isReleased = true;
      };
      let isReady = false;
      try {
        const connection = await untilAborted(entry.ready, signal);
        isReady = true;
        return {
          connection,
          release: releaseOnce,
          markFull: () => {
            entry.maxSlots = Math.max(1, entry.slots - 1);
          },
        };
      } finally {
        if (!isReady) {
          if (entry.slots === 1) remove(entry);
          releaseOnce();
        }
      }
    },
    forget(serverId) {
      for (const entry of entries) {
        if (!entry.key.serverIds.includes(serverId)) continue;
        entry.isRetired = true;
        if (entry.slots === 0) remove(entry);
      }
    },
    close() {
      for (const entry of entries) remove(entry);
    },
  };
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(signal.reason as Error);
    signal.addEventListener('abort', giveUp, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', giveUp));
  });
}
