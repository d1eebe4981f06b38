import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { Log } from '../log.ts';

/** Receives notifications of other processes through Postgres (LISTEN and NOTIFY). */
export interface NotificationListener {
  /**
   * True when every notification sent up to {@link STALE_AFTER_MS} ago has been received. Computed at each call, so the result
   * is also correct after the whole process was suspended.
   */
  isListening(): boolean;
  /**
   * Call it before `start`.
   * @param handler receives the payload of every notification of the channel.
   */
  onNotification(channel: string, handler: NotificationHandler): void;
  /** @param handler is called when notifications may have been missed: discard cached data. */
  onGap(handler: () => void): void;
  /** Resolves when the first attempt to listen has succeeded or failed. */
  start(): Promise<void>;
  /** Closes all connections. */
  stop(): Promise<void>;
}

type NotificationHandler = (payload: string) => void;

export interface NotificationListenerOptions {
  /**
   * Postgres itself, or a pooler in session mode. A pooler in transaction mode lends the listening connection to
   * other clients, which then receive the notifications. The heartbeat detects that; it counts as not listening.
   */
  url: string;
  log: Log;
}

const HEARTBEAT_INTERVAL_MS = 250;

/** Maximum age of the newest received heartbeat, counted from when it was sent. */
const STALE_AFTER_MS = 800;
/** Time after which a heartbeat or a new connection counts as lost. */
const RESPONSE_TIMEOUT_MS = 2_000;
const MIN_RETRY_DELAY_MS = 100;
const MAX_RETRY_DELAY_MS = 2_000;

/**
 * Listens on one connection and sends heartbeat notifications through another one. A heartbeat that was sent on the
 * listening connection would return with its own query even when other notifications are lost. Notifications arrive in
 * commit order, so after a heartbeat has been received, everything sent before it has been received too. Both
 * connections are separate from the app's pool, so that neither waits for other queries.
 */
export function createNotificationListener(options: NotificationListenerOptions): NotificationListener {
  const { log } = options;
  const handlersByChannel = new Map<string, NotificationHandler[]>();
  const gapHandlers: (() => void)[] = [];
  const stopping = new AbortController();
  const firstAttempt = Promise.withResolvers<undefined>();
  let running: Promise<void> | undefined;
  /** When the newest received heartbeat was sent. */
  let lastHeartbeat: ClockReading | undefined;
  let isLost = false;

  function markReceived(sentAt: ClockReading): void {
    if (isLost) log.info('LISTEN connection recovered');
    isLost = false;
    lastHeartbeat = sentAt;
    firstAttempt.resolve(undefined);
  }

  function markLost(error: unknown): void {
    lastHeartbeat = undefined;
    for (const handle of gapHandlers) handle();
    firstAttempt.resolve(undefined);
    if (isLost || stopping.signal.aborted) return;
    isLost = true;
    log.warn({ err: error }, 'LISTEN connection lost; notifications are missed until it recovers');
  }

  async function listenUntilStopped({ signal }: AbortController): Promise<void> {
    let retryDelayMs = MIN_RETRY_DELAY_MS;
    while (!signal.aborted) {
      const session = createListenSession(options.url, handlersByChannel);
      const failSession = () => {
        session.fail(new Error('stopped'));
      };
      signal.addEventListener('abort', failSession);
      try {
        await session.connect();
        for (;;) {
          markReceived(await session.sendHeartbeat());
          retryDelayMs = MIN_RETRY_DELAY_MS;
          await session.wait(HEARTBEAT_INTERVAL_MS);
        }
      } catch (error) {
        markLost(error);
      } finally {
        signal.removeEventListener('abort', failSession);
        await session.close();
      }
      await delay(retryDelayMs, undefined, { signal }).catch(() => undefined);
      retryDelayMs = Math.min(2 * retryDelayMs, MAX_RETRY_DELAY_MS);
    }
    firstAttempt.resolve(undefined);
  }

  return {
    isListening: () => lastHeartbeat !== undefined && msSince(lastHeartbeat) <= STALE_AFTER_MS,
    onNotification(channel, handler) {
      handlersByChannel.set(channel, [...(handlersByChannel.get(channel) ?? []), handler]);
    },
    onGap: (handler) => void gapHandlers.push(handler),
    async start() {
      running ??= listenUntilStopped(stopping);
      await firstAttempt.promise;
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

interface ListenSession {
  /** Connects and listens. */
  connect(): Promise<void>;
  /** Sends a heartbeat and waits until it is received. @returns when it was sent. */
  sendHeartbeat(): Promise<ClockReading>;
  /** Resolves after `ms`; rejects at once when a connection ends. */
  wait(ms: number): Promise<void>;
  /** Rejects the current wait and all later ones. */
  fail(error: Error): void;
  /** Closes both connections, also when the server does not respond. */
  close(): Promise<void>;
}

/** Opens two connections. Every wait fails when one of them ends, and after {@link RESPONSE_TIMEOUT_MS}. */
function createListenSession(
  url: string,
  handlersByChannel: ReadonlyMap<string, readonly NotificationHandler[]>,
): ListenSession {
  const { withTimeout, fail } = createTimedWait(RESPONSE_TIMEOUT_MS);
  const listenConnection = createRawConnection(url, 'ops-center-listen', fail);
  const sendConnection = createRawConnection(url, 'ops-center-beat', fail);
  const heartbeatChannel = `heartbeat_${randomUUID()}`;
  /** The server process that listens. The id from the connection handshake may be another one behind a pooler. */
  let listenerPid: number | undefined;
  let pendingHeartbeat: { nonce: string; received: () => void } | undefined;

  listenConnection.client.on('notification', ({ channel, payload = '', processId }) => {
    const handlers = handlersByChannel.get(channel);
    if (handlers !== undefined) for (const handle of handlers) handle(payload);
    // A heartbeat that the listening server process itself sent proves nothing about other senders.
    else if (processId !== listenerPid && payload === pendingHeartbeat?.nonce) pendingHeartbeat.received();
  });

  return {
    async connect() {
      await withTimeout(Promise.all([listenConnection.client.connect(), sendConnection.client.connect()]));
      listenerPid = await withTimeout(
        listen(listenConnection.client, [...handlersByChannel.keys(), heartbeatChannel]),
      );
    },
    async sendHeartbeat() {
      const received = Promise.withResolvers<undefined>();
      const nonce = randomUUID();
      const sentAt = readClocks();
      pendingHeartbeat = {
        nonce,
        received: () => {
          received.resolve(undefined);
        },
      };
      await withTimeout(
        Promise.all([
          sendConnection.client.query(HEARTBEAT_SQL, [heartbeatChannel, nonce]),
          received.promise,
        ]),
      );
      return sentAt;
    },
    wait: (ms) => withTimeout(delay(ms, undefined, { ref: false })),
    fail,
    async close() {
      await Promise.all([listenConnection.close(), sendConnection.close()]);
    },
  };
}

/** A heartbeat is a transaction; it does not wait for the disk. */
const HEARTBEAT_SQL = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";

/**
 * Sends all statements in one transaction, so that a pooler cannot distribute them.
 * @returns the id of the server process that listens.
 */
async function listen(client: pg.Client, channels: readonly string[]): Promise<number> {
  const listens = channels.map((name) => `LISTEN ${client.escapeIdentifier(name)}`);
  const text = [...listens, 'SELECT pg_backend_pid() AS pid'].join('; ');
  // Several statements return several results; the types do not declare that.
  const results = (await client.query(text)) as unknown as pg.QueryResult<{ pid: number }>[];
  const pid = results.at(-1)?.rows[0]?.pid;
  if (pid === undefined) throw new Error('the server did not return its process id');
  return pid;
}

interface RawConnection {
  client: pg.Client;
  close(): Promise<void>;
}

function createRawConnection(url: string, name: string, onEnd: (error: Error) => void): RawConnection {
  // Created here, so that it can be destroyed: the client would wait for a server that does not respond.
  const socket = new Socket();
  const client = new pg.Client({ connectionString: url, application_name: name, stream: () => socket });
  client.on('error', onEnd);
  client.on('end', () => {
    onEnd(new Error('the connection ended'));
  });
  return {
    client,
    async close() {
      // Sent without waiting, so that the server does not log a broken connection.
      client.end().catch(() => undefined);
      socket.destroy();
      if (!socket.closed) await once(socket, 'close');
    },
  };
}

interface TimedWait {
  /** One wait at a time. */
  withTimeout: <T>(work: Promise<T>) => Promise<T>;
  fail: (error: Error) => void;
}

/** Limits each wait to `timeoutMs`; after the first failure all later waits fail. */
function createTimedWait(timeoutMs: number): TimedWait {
  let failure: Error | undefined;
  let failWait: (error: Error) => void = () => undefined;

  function fail(error: Error): void {
    failure ??= error;
    failWait(failure);
  }

  async function withTimeout<T>(work: Promise<T>): Promise<T> {
    const failed = Promise.withResolvers<never>();
    failWait = failed.reject;
    const timer = setTimeout(() => {
      fail(new Error(`no response within ${String(timeoutMs)} ms`));
    }, timeoutMs);
    if (failure !== undefined) fail(failure);
    try {
      return await Promise.race([work, failed.promise]);
    } finally {
      clearTimeout(timer);
      // Its later rejection is ignored.
      work.catch(() => undefined);
    }
  }

  return { withTimeout, fail };
}

/** Two clocks: the monotonic one may stop while the machine is suspended, the wall clock can be set back. */
interface ClockReading {
  steadyMs: number;
  wallMs: number;
}

function readClocks(): ClockReading {
  return { steadyMs: performance.now(), wallMs: Date.now() };
}

function msSince({ steadyMs, wallMs }: ClockReading): number {
  return Math.max(performance.now() - steadyMs, Date.now() - wallMs);
}
