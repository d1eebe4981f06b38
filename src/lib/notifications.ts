import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import type { Log } from './log.ts';

/** What other processes tell through Postgres (LISTEN and NOTIFY). */
export interface Notifications {
  /**
   * Whether everything that was told up to `deafAfterMs` ago has been heard. Asked at the time of use: also
   * after a pause of the whole process the answer is of now.
   */
  isHeard(): boolean;
  /** @param handler gets the payload of every notice. */
  onNotice(handler: (payload: string) => void): void;
  /** @param handler is called when notices may have been missed: what was remembered until then is of no use. */
  onGap(handler: () => void): void;
  /** Resolves when the first attempt to listen has worked or failed. */
  start(): Promise<void>;
  /** Leaves nothing open. */
  stop(): Promise<void>;
}

export interface NotificationsOptions {
  /**
   * Straight to Postgres, or by way of a pooler in session mode. One in transaction mode gives the connection
   * that listens to others, who get its notices: that is found out, and counts as being deaf.
   */
  url: string;
  channel: string;
  log: Log;
  heartbeatMs?: number;
  /** How long ago the newest heartbeat that was heard may have been sent. */
  deafAfterMs?: number;
  /** When a heartbeat, or a new connection, counts as lost. */
  deadAfterMs?: number;
}

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2_000;

/**
 * Listens on one connection and sends heartbeats through another, as notices come: one that is sent where it
 * is listened for comes back with its own query, also when notices do not come through. Notices arrive in the
 * order in which their transactions were committed, so that whoever has heard a heartbeat has heard everything
 * that was told before it was sent. Neither connection waits for what else the app asks of the database.
 */
export function createNotifications(options: NotificationsOptions): Notifications {
  const { log, heartbeatMs = 250, deafAfterMs = 800 } = options;
  const noticeHandlers: ((payload: string) => void)[] = [];
  const gapHandlers: (() => void)[] = [];
  const stopping = new AbortController();
  const firstAttempt = Promise.withResolvers<undefined>();
  let running: Promise<void> | undefined;
  /** When the newest heartbeat that was heard was sent. */
  let heardOf: Moment | undefined;
  let isLost = false;

  function hear(sentAt: Moment): void {
    if (isLost) log.info({ channel: options.channel }, 'notices of other processes are heard again');
    isLost = false;
    heardOf = sentAt;
    firstAttempt.resolve(undefined);
  }

  function lose(error: unknown): void {
    heardOf = undefined;
    for (const handle of gapHandlers) handle();
    firstAttempt.resolve(undefined);
    if (isLost || stopping.signal.aborted) return;
    isLost = true;
    log.warn(
      { channel: options.channel, err: error },
      'notices of other processes are not heard; until they are, nothing is remembered',
    );
  }

  async function run({ signal }: AbortController): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    while (!signal.aborted) {
      const listener = createListener(options, noticeHandlers);
      const end = () => {
        listener.fail(new Error('stopped'));
      };
      signal.addEventListener('abort', end);
      try {
        await listener.open();
        for (;;) {
          hear(await listener.beat());
          pauseMs = FIRST_PAUSE_MS;
          await listener.rest(heartbeatMs);
        }
      } catch (error) {
        lose(error);
      } finally {
        signal.removeEventListener('abort', end);
        await listener.close();
      }
      await pause(pauseMs, undefined, { signal }).catch(() => undefined);
      pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
    }
    firstAttempt.resolve(undefined);
  }

  return {
    isHeard: () => heardOf !== undefined && msSince(heardOf) <= deafAfterMs,
    onNotice: (handler) => void noticeHandlers.push(handler),
    onGap: (handler) => void gapHandlers.push(handler),
    async start() {
      running ??= run(stopping);
      await firstAttempt.promise;
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

interface Listener {
  /** Connects and listens. */
  open(): Promise<void>;
  /** Sends a heartbeat and waits until it is heard. @returns when it was sent. */
  beat(): Promise<Moment>;
  /** Lets time pass, less when a connection ends. */
  rest(ms: number): Promise<void>;
  /** Makes what is waited for, and all that comes, fail. */
  fail(error: Error): void;
  /** Gives both connections up, also when nobody answers. */
  close(): Promise<void>;
}

/** Two connections. Every wait ends when either of them does, and after `deadAfterMs` at the latest. */
function createListener(
  { url, channel, deadAfterMs = 2_000 }: NotificationsOptions,
  handlers: readonly ((payload: string) => void)[],
): Listener {
  const { inTime, fail } = createWait(deadAfterMs);
  const ear = createLine(url, 'ops-center-listen', fail);
  const mouth = createLine(url, 'ops-center-beat', fail);
  const ownChannel = `${channel}_${randomUUID()}`;
  /** The server's process that listens. A pooler may tell another when connecting. */
  let ownPid: number | undefined;
  let awaited: { nonce: string; heard: () => void } | undefined;

  ear.client.on('notification', ({ channel: told, payload = '', processId }) => {
    if (told === channel) for (const handle of handlers) handle(payload);
    // One that the listening process has sent shows nothing: those of others go another way.
    else if (processId !== ownPid && payload === awaited?.nonce) awaited.heard();
  });

  return {
    async open() {
      await inTime(Promise.all([ear.client.connect(), mouth.client.connect()]));
      ownPid = await inTime(listen(ear.client, [channel, ownChannel]));
    },
    async beat() {
      const heard = Promise.withResolvers<undefined>();
      const nonce = randomUUID();
      const sentAt = now();
      awaited = {
        nonce,
        heard: () => {
          heard.resolve(undefined);
        },
      };
      await inTime(Promise.all([mouth.client.query(BEAT, [ownChannel, nonce]), heard.promise]));
      return sentAt;
    },
    rest: (ms) => inTime(pause(ms, undefined, { ref: false })),
    fail,
    async close() {
      await Promise.all([ear.close(), mouth.close()]);
    },
  };
}

/** A heartbeat is a transaction: it need not wait for the disk. */
const BEAT = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";

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

interface Line {
  client: pg.Client;
  close(): Promise<void>;
}

function createLine(url: string, name: string, onEnd: (error: Error) => void): Line {
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

interface Wait {
  /** One wait at a time. */
  inTime: <T>(work: Promise<T>) => Promise<T>;
  fail: (error: Error) => void;
}

/** Waits of `limitMs` at most; after the first failure all of them fail. */
function createWait(limitMs: number): Wait {
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
      fail(new Error(`no answer within ${String(limitMs)} ms`));
    }, limitMs);
    if (failure !== undefined) fail(failure);
    try {
      return await Promise.race([work, failed.promise]);
    } finally {
      clearTimeout(timer);
      // It may fail later, when nobody waits for it any more.
      work.catch(() => undefined);
    }
  }

  return { inTime, fail };
}

/** By two clocks: one does not count while the machine is suspended, the other can be set back. */
interface Moment {
  steadyMs: number;
  wallMs: number;
}

function now(): Moment {
  return { steadyMs: performance.now(), wallMs: Date.now() };
}

function msSince({ steadyMs, wallMs }: Moment): number {
  return Math.max(performance.now() - steadyMs, Date.now() - wallMs);
}
