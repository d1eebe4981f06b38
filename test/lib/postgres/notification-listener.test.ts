import { afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { pino } from 'pino';
import {
  createNotificationListener,
  type NotificationListener,
} from '../../../src/lib/postgres/notification-listener.ts';
import { setClocksAhead } from '../../support/clocks.ts';
import { startCutProxy, type CutProxy } from '../../support/cut-proxy.ts';
import { createDatabase } from '../../support/database.ts';
import { startTransactionPooler } from '../../support/transaction-pooler.ts';
import { until } from '../../support/until.ts';

const CHANNEL = 'things';
/** A listener without a heartbeat for this long reports that it is not listening. */
const STALE_AFTER_MS = 800;

let databaseUrl: string;
beforeAll(async () => {
  databaseUrl = (await createDatabase()).appUrl;
});

const opened: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

interface TestListener {
  listener: NotificationListener;
  received: string[];
  gaps: () => number;
  lines: string[];
  /** Number of the listener's connections to this test's database. */
  connections: () => Promise<number>;
}

function createListener(url: string): TestListener {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
  const listener = createNotificationListener({ url, log });
  const received: string[] = [];
  let gaps = 0;
  listener.onNotification(CHANNEL, (payload) => void received.push(payload));
  listener.onGap(() => void (gaps += 1));
  opened.push(() => listener.stop());
  return { listener, received, gaps: () => gaps, lines, connections: countConnections };
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

const notify = (payload: string) => sql('SELECT pg_notify($1, $2)', [CHANNEL, payload]);

async function countConnections(): Promise<number> {
  const rows = await sql(
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name IN ('ops-center-listen', 'ops-center-beat')",
  );
  return rows.length;
}

async function startProxy(): Promise<{ proxy: CutProxy; url: string }> {
  const proxy = await startCutProxy(databaseUrl);
  opened.push(() => proxy.close());
  return { proxy, url: proxy.through(databaseUrl) };
}

const messages = (lines: readonly string[]) => lines.map((line) => (JSON.parse(line) as { msg: string }).msg);

describe('a notification listener', () => {
  it('receives notifications of its channel only, as soon as it has started', async () => {
    const { listener, received, lines } = createListener(databaseUrl);
    expect(listener.isListening()).toBe(false);
    await listener.start();
    expect(listener.isListening()).toBe(true);
    await notify('one');
    await sql("SELECT pg_notify('other', 'thing')");
    await notify('two');
    await until(() => received.length === 2);
    expect(received).toEqual(['one', 'two']);
    expect(lines).toEqual([]);
  });

  it('gives each handler the notifications of its own channel', async () => {
    const { listener, received } = createListener(databaseUrl);
    const others: string[] = [];
    listener.onNotification('others', (payload) => void others.push(payload));
    listener.onNotification('others', (payload) => void others.push(`again: ${payload}`));
    await listener.start();
    await notify('one');
    await sql("SELECT pg_notify('others', 'two')");
    await until(() => others.length === 2);
    expect([received, others]).toEqual([['one'], ['two', 'again: two']]);
  });

  it('closes its connections when it stops', async () => {
    const { listener, connections } = createListener(databaseUrl);
    await listener.start();
    expect(await connections()).toBe(2);
    await listener.stop();
    expect(listener.isListening()).toBe(false);
    await until(async () => (await connections()) === 0);
  });

  it('can be stopped before it has started, and while the server does not respond', async () => {
    await createListener(databaseUrl).listener.stop();
    const { proxy, url } = await startProxy();
    proxy.silence();
    const { listener } = createListener(url);
    const started = listener.start();
    await listener.stop();
    await started;
  });

  it('starts without a connection and listens later', async () => {
    const { proxy, url } = await startProxy();
    proxy.cut();
    const { listener } = createListener(url);
    await listener.start();
    expect(listener.isListening()).toBe(false);
    proxy.restore();
    await until(() => listener.isListening());
  });
});

describe('a broken connection', () => {
  it('reports a gap, reconnects, and logs the outage once at its begin and once at its end', async () => {
    const { proxy, url } = await startProxy();
    const { listener, received, gaps, lines } = createListener(url);
    await listener.start();
    proxy.cut();
    await until(() => gaps() > 0);
    expect(listener.isListening()).toBe(false);
    await notify('missed');
    // Several attempts fail in between; only the first is logged.
    await until(() => gaps() > 2);
    proxy.restore();
    await until(() => listener.isListening());
    await notify('received');
    await until(() => received.length > 0);
    expect(received).toEqual(['received']);
    expect(messages(lines)).toEqual([
      expect.stringContaining('connection lost'),
      expect.stringContaining('connection recovered'),
    ]);
  });

  it('is detected when the server ends it', async () => {
    const { listener, gaps } = createListener(databaseUrl);
    await listener.start();
    await sql(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name = 'ops-center-listen'`,
    );
    await until(() => gaps() === 1);
    await until(() => listener.isListening());
  });
});

describe('a connection that stays open but transmits nothing', () => {
  it('counts as not listening after STALE_AFTER_MS, without an error', async () => {
    const { proxy, url } = await startProxy();
    const { listener, gaps } = createListener(url);
    await listener.start();
    proxy.silence();
    using _later = setClocksAhead(STALE_AFTER_MS);
    expect(listener.isListening()).toBe(false);
    expect(gaps()).toBe(0);
  });

  it('is replaced, and reports a gap', async () => {
    const { proxy, url } = await startProxy();
    const { listener, received, gaps } = createListener(url);
    await listener.start();
    proxy.silence();
    await until(() => gaps() > 0);
    proxy.restore();
    await until(() => listener.isListening());
    await notify('received');
    await until(() => received.length === 1);
  });
});

describe('a pooler that lends the listening connection to other clients', () => {
  it.each([
    ['with its notifications', false],
    ['and sends notifications of the listening server process to all', true],
  ])('%s counts as not listening', async (_, toAll) => {
    const pooler = await startTransactionPooler(databaseUrl, toAll);
    opened.push(() => pooler.close());
    const { listener, received, gaps } = createListener(pooler.url);
    const started = listener.start();
    const other = new pg.Client({ connectionString: pooler.url });
    await other.connect();
    for (let round = 0; gaps() === 0; round += 1) {
      await other.query('SELECT 1');
      await notify(`notification ${String(round)}`);
      expect(listener.isListening()).toBe(false);
    }
    await started;
    await other.end();
    expect(received.length > 0).toBe(toAll);
  });
});

describe('a process that was suspended', () => {
  it('does not report that it is listening before it has received a heartbeat', async () => {
    const { listener, received } = createListener(databaseUrl);
    await listener.start();
    const other = new pg.Client({ connectionString: databaseUrl });
    await other.connect();
    const notified = other.query('SELECT pg_notify($1, $2)', [CHANNEL, 'meanwhile']);
    await new Promise((resolve) => setImmediate(resolve));
    const untilMs = performance.now() + STALE_AFTER_MS + 50;
    while (performance.now() < untilMs);
    expect(received).toEqual([]);
    expect(listener.isListening()).toBe(false);
    await until(() => listener.isListening());
    await notified;
    await other.end();
    expect(received).toEqual(['meanwhile']);
  });
});
