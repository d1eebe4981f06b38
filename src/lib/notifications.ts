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
  /** Straight to Postgres: a pooler in transaction mode does not pass notices on, and nothing is then heard. */
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
 * Listens on a connection of its own and sends itself heartbeats on it. Notices arrive in the order in which
 * their transactions were committed, so that whoever has heard a heartbeat has heard everything that was told
 * before it was sent.
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
  /** Lets time pass, less when the connection ends. */
  rest(ms: number): Promise<void>;
  /** Makes what is waited for, and all that comes, fail. */
  fail(error: Error): void;
  /** Gives the connection up, also when nobody answers. */
  close(): Promise<void>;
}

/** One connection. Every wait ends when the connection does, and after `deadAfterMs` at the latest. */
function createListener(
  { url, channel, deadAfterMs = 2_000 }: NotificationsOptions,
  handlers: readonly ((payload: string) => void)[],
): Listener {
  // One's own, to be able to drop it: the client would wait for a server that is silent.
  const socket = new Socket();
  const client = new pg.Client({
    connectionString: url,
    application_name: 'ops-center-listen',
    stream: () => socket,
  });
  const ownChannel = `${channel}_${randomUUID()}`;
  let awaited: { nonce: string; heard: () => void } | undefined;
  let failure: Error | undefined;
  let failWait: (error: Error) => void = () => undefined;

  function fail(error: Error): void {
    failure ??= error;
    failWait(failure);
  }

  client.on('error', fail);
  client.on('end', () => {
    fail(new Error('the connection ended'));
  });
  client.on('notification', (notice) => {
    const payload = notice.payload ?? '';
    if (notice.channel === channel) for (const handle of handlers) handle(payload);
    else if (payload === awaited?.nonce) awaited.heard();
  });

  /** One wait at a time. */
  async function inTime<T>(work: Promise<T>): Promise<T> {
    const failed = Promise.withResolvers<never>();
    failWait = failed.reject;
    const timer = setTimeout(() => {
      fail(new Error(`no answer within ${String(deadAfterMs)} ms`));
    }, deadAfterMs);
    if (failure !== undefined) fail(failure);
    try {
      return await Promise.race([work, failed.promise]);
    } finally {
      clearTimeout(timer);
      // It may fail later, when nobody waits for it any more.
      work.catch(() => undefined);
    }
  }

  return {
    async open() {
      await inTime(client.connect());
      // A heartbeat is a transaction: it need not wait for the disk.
      const listens = [channel, ownChannel].map((name) => `LISTEN ${client.escapeIdentifier(name)}`);
      await inTime(client.query(['SET synchronous_commit = off', ...listens].join('; ')));
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
      await inTime(
        Promise.all([client.query('SELECT pg_notify($1, $2)', [ownChannel, nonce]), heard.promise]),
      );
      return sentAt;
    },
    rest: (ms) => inTime(pause(ms, undefined, { ref: false })),
    fail,
    async close() {
      // Said and not waited for: a server that hears it logs no broken connection, a silent one never would.
      client.end().catch(() => undefined);
      socket.destroy();
      if (!socket.closed) await once(socket, 'close');
    },
  };
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
