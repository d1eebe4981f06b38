import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import type { Log } from '../log.ts';

/** What other processes tell through Postgres (LISTEN and NOTIFY). */
export interface NotificationListener {
  /**
   * Whether everything that was told up to `deafAfterMs` ago has been heard. Asked at the time of use: also
   * after a pause of the whole process the answer is of now.
   */
  isListening(): boolean;
  /** @param handler gets the payload of every notice. */
  onNotification(handler: (payload: string) => void): void;
  /** @param handler is called when notices may have been missed: what was remembered until then is of no use. */
  onGap(handler: () => void): void;
  /** Resolves when the first attempt to listen has worked or failed. */
  start(): Promise<void>;
  /** Leaves nothing open. */
  stop(): Promise<void>;
}

export interface NotificationListenerOptions {
  /**
   * Straight to Postgres, or by way of a pooler in session mode. One in transaction mode gives the connection
   * that listens to others, who get its notices: that is found out, and counts as being deaf.
   */
  url: string;
  channel: string;
  log: Log;
  heartbeatIntervalMs?: number;
  /** How long ago the newest heartbeat that was heard may have been sent. */
  staleAfterMs?: number;
  /** When a heartbeat, or a new connection, counts as lost. */
  responseTimeoutMs?: number;
}

const MIN_RETRY_DELAY_MS = 100;
const MAX_RETRY_DELAY_MS = 2_000;

/**
 * Listens on one connection and sends heartbeats through another, as notices come: one that is sent where it
 * is listened for comes back with its own query, also when notices do not come through. Notices arrive in the
 * order in which their transactions were committed, so that whoever has heard a heartbeat has heard everything
 * that was told before it was sent. Neither connection waits for what else the app asks of the database.
 */
export function createNotificationListener(options: NotificationListenerOptions): NotificationListener {
  const { log, heartbeatIntervalMs: heartbeatMs = 250, staleAfterMs: deafAfterMs = 800 } = options;
  const notificationHandlers: ((payload: string) => void)[] = [];
  const gapHandlers: (() => void)[] = [];
  const stopping = new AbortController();
  const firstAttempt = Promise.withResolvers<undefined>();
  let running: Promise<void> | undefined;
  /** When the newest heartbeat that was heard was sent. */
  let lastHeartbeat: ClockReading | undefined;
  let isLost = false;

  function markReceived(sentAt: ClockReading): void {
    if (isLost) log.info({ channel: options.channel }, 'notices of other processes are heard again');
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
    log.warn(
      { channel: options.channel, err: error },
      'notices of other processes are not heard; until they are, nothing is remembered',
    );
  }

  async function listenUntilStopped({ signal }: AbortController): Promise<void> {
    let retryDelayMs = MIN_RETRY_DELAY_MS;
    while (!signal.aborted) {
      const session = createListenSession(options, notificationHandlers);
      const failSession = () => {
        session.fail(new Error('stopped'));
      };
      signal.addEventListener('abort', failSession);
      try {
        await session.connect();
        for (;;) {
          markReceived(await session.sendHeartbeat());
          retryDelayMs = MIN_RETRY_DELAY_MS;
          await session.wait(heartbeatMs);
        }
      } catch (error) {
        markLost(error);
      } finally {
        signal.removeEventListener('abort', failSession);
        await session.close();
      }
      await pause(retryDelayMs, undefined, { signal }).catch(() => undefined);
      retryDelayMs = Math.min(2 * retryDelayMs, MAX_RETRY_DELAY_MS);
    }
    firstAttempt.resolve(undefined);
  }

  return {
    isListening: () => lastHeartbeat !== undefined && msSince(lastHeartbeat) <= deafAfterMs,
    onNotification: (handler) => void notificationHandlers.push(handler),
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
  /** Sends a heartbeat and waits until it is heard. @returns when it was sent. */
  sendHeartbeat(): Promise<ClockReading>;
  /** Lets time pass, less when a connection ends. */
  wait(ms: number): Promise<void>;
  /** Makes what is waited for, and all that comes, fail. */
  fail(error: Error): void;
  /** Gives both connections up, also when nobody answers. */
  close(): Promise<void>;
}

/** Two connections. Every wait ends when either of them does, and after `deadAfterMs` at the latest. */
function createListenSession(
  { url, channel, responseTimeoutMs: deadAfterMs = 2_000 }: NotificationListenerOptions,
  handlers: readonly ((payload: string) => void)[],
): ListenSession {
  const { withTimeout: inTime, fail } = createTimedWait(deadAfterMs);
  const listenConnection = createRawConnection(url, 'ops-center-listen', fail);
  const sendConnection = createRawConnection(url, 'ops-center-beat', fail);
  const heartbeatChannel = `${channel}_${randomUUID()}`;
  /** The server's process that listens. A pooler may tell another when connecting. */
  let listenerPid: number | undefined;
  let pendingHeartbeat: { nonce: string; received: () => void } | undefined;

  listenConnection.client.on('notification', ({ channel: notifiedChannel, payload = '', processId }) => {
    if (notifiedChannel === channel) for (const handle of handlers) handle(payload);
    // One that the listening process has sent shows nothing: those of others go another way.
    else if (processId !== listenerPid && payload === pendingHeartbeat?.nonce) pendingHeartbeat.received();
  });

  return {
    async connect() {
      await inTime(Promise.all([listenConnection.client.connect(), sendConnection.client.connect()]));
      listenerPid = await inTime(listen(listenConnection.client, [channel, heartbeatChannel]));
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
      await inTime(
        Promise.all([
          sendConnection.client.query(HEARTBEAT_SQL, [heartbeatChannel, nonce]),
          received.promise,
        ]),
      );
      return sentAt;
    },
    wait: (ms) => inTime(pause(ms, undefined, { ref: false })),
    fail,
    async close() {
      await Promise.all([listenConnection.close(), sendConnection.close()]);
    },
  };
}

/** A heartbeat is a transaction: it need not wait for the disk. */
const HEARTBEAT_SQL = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";

/** In one transaction, so that a pooler cannot spread it. @returns the process that listens. */
async function listen(client: pg.Client, channels: readonly string[]): Promise<number> {
  const listens = channels.map((name) => `LISTEN ${client.escapeIdentifier(name)}`);
  const text = [...listens, 'SELECT pg_backend_pid() AS pid'].join('; ');
  // Several statements have several results, which the types do not tell.
  const results = (await client.query(text)) as unknown as pg.QueryResult<{ pid: number }>[];
  const pid = results.at(-1)?.rows[0]?.pid;
  if (pid === undefined) throw new Error('the server did not name its process');
  return pid;
}

interface RawConnection {
  client: pg.Client;
  close(): Promise<void>;
}

function createRawConnection(url: string, name: string, onEnd: (error: Error) => void): RawConnection {
  // One's own, to be able to drop it: the client would wait for a server that is silent.
  const socket = new Socket();
  const client = new pg.Client({ connectionString: url, application_name: name, stream: () => socket });
  client.on('error', onEnd);
  client.on('end', () => {
    onEnd(new Error('the connection ended'));
  });
  return {
    client,
    async close() {
      // Said and not waited for: a server that hears it logs no broken connection, a silent one never would.
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

/** Waits of `limitMs` at most; after the first failure all of them fail. */
function createTimedWait(timeoutMs: number): TimedWait {
  let failure: Error | undefined;
  let failWait: (error: Error) => void = () => undefined;

  function fail(error: Error): void {
    failure ??= error;
    failWait(failure);
  }

  async function inTime<T>(work: Promise<T>): Promise<T> {
    const failed = Promise.withResolvers<never>();
    failWait = failed.reject;
    const timer = setTimeout(() => {
      fail(new Error(`no answer within ${String(timeoutMs)} ms`));
    }, timeoutMs);
    if (failure !== undefined) fail(failure);
    try {
      return await Promise.race([work, failed.promise]);
    } finally {
      clearTimeout(timer);
      // It may fail later, when nobody waits for it any more.
      work.catch(() => undefined);
    }
  }

  return { withTimeout: inTime, fail };
}

/** By two clocks: one does not count while the machine is suspended, the other can be set back. */
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
