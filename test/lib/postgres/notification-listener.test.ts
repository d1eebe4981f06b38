import { afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { pino } from 'pino';
import {
  createNotificationListener,
  type NotificationListener,
} from '../../../src/lib/postgres/notification-listener.ts';
import { setClocksAhead } from '../../support/clocks.ts';
import { startCutProxy, type CutProxy } from '../../support/cut-proxy.ts';
import { createDatabase } from '../../support/stack.ts';
import { startTransactionPooler } from '../../support/transaction-pooler.ts';
import { until } from '../../support/until.ts';

const CHANNEL = 'things';
/** The promise: whoever has not heard for this long says so. */
const DEAF_AFTER_MS = 800;

let databaseUrl: string;
beforeAll(async () => {
  databaseUrl = (await createDatabase()).appUrl;
});

const opened: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

interface Ear {
  notifications: NotificationListener;
  heard: string[];
  gaps: () => number;
  lines: string[];
  /** The Postgres connections that listen in this test's database. */
  connections: () => Promise<number>;
}

function ear(url: string): Ear {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
  const notifications = createNotificationListener({ url, channel: CHANNEL, log });
  const heard: string[] = [];
  let gaps = 0;
  notifications.onNotification((payload) => void heard.push(payload));
  notifications.onGap(() => void (gaps += 1));
  opened.push(() => notifications.stop());
  return { notifications, heard, gaps: () => gaps, lines, connections: listeners };
}

async function sql(text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return (await client.query(text, values)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

const tell = (payload: string) => sql('SELECT pg_notify($1, $2)', [CHANNEL, payload]);

async function listeners(): Promise<number> {
  const rows = await sql(
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name IN ('ops-center-listen', 'ops-center-beat')",
  );
  return rows.length;
}

async function proxied(): Promise<{ proxy: CutProxy; url: string }> {
  const proxy = await startCutProxy(databaseUrl);
  opened.push(() => proxy.close());
  return { proxy, url: proxy.through(databaseUrl) };
}

const messages = (lines: readonly string[]) => lines.map((line) => (JSON.parse(line) as { msg: string }).msg);

describe('notices of other processes', () => {
  it('are heard as soon as listening has started, and not those on other channels', async () => {
    const { notifications, heard, lines } = ear(databaseUrl);
    expect(notifications.isListening()).toBe(false);
    await notifications.start();
    expect(notifications.isListening()).toBe(true);
    await tell('one');
    await sql("SELECT pg_notify('other', 'thing')");
    await tell('two');
    await until(() => heard.length === 2);
    expect(heard).toEqual(['one', 'two']);
    expect(lines).toEqual([]);
  });

  it('leave no connection behind when listening stops, and are not heard any more', async () => {
    const { notifications, connections } = ear(databaseUrl);
    await notifications.start();
    expect(await connections()).toBe(2);
    await notifications.stop();
    expect(notifications.isListening()).toBe(false);
    await until(async () => (await connections()) === 0);
  });

  it('can be stopped before listening has begun, and while nobody answers', async () => {
    await ear(databaseUrl).notifications.stop();
    const { proxy, url } = await proxied();
    proxy.silence();
    const { notifications } = ear(url);
    const started = notifications.start();
    await notifications.stop();
    await started;
  });

  it('do not hold up the start when they cannot be heard, and are heard later', async () => {
    const { proxy, url } = await proxied();
    proxy.cut();
    const { notifications } = ear(url);
    await notifications.start();
    expect(notifications.isListening()).toBe(false);
    proxy.restore();
    await until(() => notifications.isListening());
  });
});

describe('a connection that is cut', () => {
  it('is a gap, is made again, and is logged once when it begins and once when it ends', async () => {
    const { proxy, url } = await proxied();
    const { notifications, heard, gaps, lines } = ear(url);
    await notifications.start();
    proxy.cut();
    await until(() => gaps() > 0);
    expect(notifications.isListening()).toBe(false);
    await tell('missed');
    // Some attempts fail meanwhile; the log hears of the first alone.
    await until(() => gaps() > 2);
    proxy.restore();
    await until(() => notifications.isListening());
    await tell('heard');
    await until(() => heard.length > 0);
    expect(heard).toEqual(['heard']);
    expect(messages(lines)).toEqual([
      expect.stringContaining('are not heard'),
      expect.stringContaining('are heard again'),
    ]);
  });

  it('by the server alone is noticed too', async () => {
    const { notifications, gaps } = ear(databaseUrl);
    await notifications.start();
    await sql(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name = 'ops-center-listen'`,
    );
    await until(() => gaps() === 1);
    await until(() => notifications.isListening());
  });
});

describe('a connection that passes nothing on any more', () => {
  it('counts as deaf within its time, though nothing has failed', async () => {
    const { proxy, url } = await proxied();
    const { notifications, gaps } = ear(url);
    await notifications.start();
    proxy.silence();
    using _later = setClocksAhead(DEAF_AFTER_MS);
    expect(notifications.isListening()).toBe(false);
    expect(gaps()).toBe(0);
  });

  it('is given up and made again: what came meanwhile is a gap', async () => {
    const { proxy, url } = await proxied();
    const { notifications, heard, gaps } = ear(url);
    await notifications.start();
    proxy.silence();
    await until(() => gaps() > 0);
    proxy.restore();
    await until(() => notifications.isListening());
    await tell('heard');
    await until(() => heard.length === 1);
  });
});

describe('a pooler that lends the connection which listens to others', () => {
  it.each([
    ['and its notices with it', false],
    ['and passes what the listening process itself has sent to all', true],
  ])('%s counts as deaf', async (_, toAll) => {
    const pooler = await startTransactionPooler(databaseUrl, toAll);
    opened.push(() => pooler.close());
    const { notifications, heard, gaps } = ear(pooler.url);
    const started = notifications.start();
    const other = new pg.Client({ connectionString: pooler.url });
    await other.connect();
    for (let round = 0; gaps() === 0; round += 1) {
      await other.query('SELECT 1');
      await tell(`notice ${String(round)}`);
      expect(notifications.isListening()).toBe(false);
    }
    await started;
    await other.end();
    expect(heard.length > 0).toBe(toAll);
  });
});

describe('a process that stood still', () => {
  it('does not take itself for one that hears, before it has heard again', async () => {
    const { notifications, heard } = ear(databaseUrl);
    await notifications.start();
    const other = new pg.Client({ connectionString: databaseUrl });
    await other.connect();
    const told = other.query('SELECT pg_notify($1, $2)', [CHANNEL, 'meanwhile']);
    await new Promise((resolve) => setImmediate(resolve));
    const untilMs = performance.now() + DEAF_AFTER_MS + 50;
    while (performance.now() < untilMs);
    expect(heard).toEqual([]);
    expect(notifications.isListening()).toBe(false);
    await until(() => notifications.isListening());
    await told;
    await other.end();
    expect(heard).toEqual(['meanwhile']);
  });
});
