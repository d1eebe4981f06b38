import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { createHash, randomBytes } from 'node:crypto';
import pg from 'pg';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import type { NumberedEvent } from '../../src/runs/events.ts';
import type { RunRef } from '../../src/runs/run-encryption.ts';
import { StartRun, type RunsQuery } from '../../src/runs/schema.ts';
import { fernetKey } from '../support/app.ts';
import { evidence } from '../support/evidence.ts';
import { blockDatabase, createDatabase } from '../support/database.ts';
import { until } from '../support/until.ts';
import {
  createInstance,
  waitForExit,
  firstEvent,
  createPrincipal,
  submit,
  outputText,
  collectEvents,
  type Instance,
  type InstanceOptions,
} from './instance.ts';

let urls: { appUrl: string; ownerUrl: string };
let options: { databaseUrl: string; encryptionKey: string };
let one: Instance;
let all: Instance[];

beforeEach(async () => {
  urls = await createDatabase();
  options = { databaseUrl: urls.appUrl, encryptionKey: fernetKey() };
  all = [];
  one = await open();
});
afterEach(() => Promise.all(all.map((instance) => instance.close())));

/** Opens another instance with an empty memory; it is closed after the test. */
async function open(own: Partial<InstanceOptions> = {}): Promise<Instance> {
  const instance = createInstance({ ...options, ...own });
  all.push(instance);
  await instance.start();
  return instance;
}

async function readKept({ runs }: Instance, run: RunRef): Promise<NumberedEvent[]> {
  const seen: NumberedEvent[] = [];
  for await (const event of runs.subscribeKept(run, new AbortController().signal)) seen.push(event);
  return seen;
}

/** With output as text: comparing large buffers takes seconds. */
function toComparable(events: readonly NumberedEvent[]) {
  return events.map(({ seq, event }) => ({
    seq,
    event: event.type === 'output' ? { ...event, data: event.data.toString('latin1') } : event,
  }));
}

/** Runs SQL as the schema's owner, to which row-level security does not apply. */
async function sql(text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: urls.ownerUrl });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

describe('the history', () => {
  it('contains user, server, program, its hash and the result of a run', async () => {
    const me = createPrincipal();
    const code = 'echo out; echo err >&2; exit 7';
    const asked = StartRun.parse({ language: 'bash', code });
    const run = await one.runs.submit(me, 'one', asked, 'req_test');
    await waitForExit(one, run);
    expect(await one.runs.get(me, run.id)).toMatchObject({
      id: run.id,
      user_id: me.user.id,
      server_id: 'one',
      server_name: 'server one',
      server_type: 'ssh',
      language: 'bash',
      code_sha256: createHash('sha256').update(code).digest('hex'),
      program: { language: 'bash', code },
      status: 'finished',
      cause: 'exited',
      code: 7,
      signal: null,
      cleanup: 'verified',
      stdout_bytes: 4,
      stderr_bytes: 4,
    });
  });

  it('contains the exit when a viewer receives it', async () => {
    const me = createPrincipal();
    for (let at = 0; at < 10; at += 1) {
      const run = await submit(one, me, 'true');
      await waitForExit(one, run);
      expect(await one.runs.get(me, run.id)).toMatchObject({ status: 'finished', code: 0 });
    }
  });

  it('contains the server version with which a queued run was started', async () => {
    const me = createPrincipal();
    const alone = await open({ settings: { perUser: 1 } });
    const first = await submit(alone, me, 'sleep 600');
    const second = await submit(alone, me, 'true');
    alone.conditions.version = 2;
    await alone.runs.cancel(me, first.id, 'req_test');
    await waitForExit(alone, second);
    expect(await sql('SELECT server_versions FROM runs ORDER BY number')).toEqual([
      { server_versions: [1] },
      { server_versions: [2] },
    ]);
  });

  it('is paged, newest first', async () => {
    const me = createPrincipal();
    const ids: string[] = [];
    for (let at = 0; at < 5; at += 1) ids.push((await submit(one, me, 'true')).id);
    const first = await one.runs.list(me, { cursor: undefined, limit: 3 });
    const second = await one.runs.list(me, { cursor: first.next_cursor ?? '', limit: 3 });
    expect([...first.data, ...second.data].map(({ id }) => id)).toEqual(ids.reverse());
    expect(second.next_cursor).toBeNull();
  });

  it('is filtered by server, status, language and cause, also in pages', async () => {
    const me = createPrincipal();
    const start = async (server: string, request: object) =>
      one.runs.submit(me, server, StartRun.parse(request), 'req_test');
    const finished = [
      await start('one', { language: 'bash', code: 'true' }),
      await start('two', { language: 'bash', code: 'kill -9 $$' }),
      await start('two', { command: 'true' }),
    ];
    for (const run of finished) await waitForExit(one, run);
    const active = await start('two', { command: 'sleep 600' });
    const [bash, killed, command] = finished.map(({ id }) => id);
    const list = async (filter: Partial<RunsQuery>) =>
      (await one.runs.list(me, { limit: 10, ...filter })).data.map(({ id }) => id);
    expect(await list({})).toEqual([active.id, command, killed, bash]);
    expect(await list({ server_id: 'two' })).toEqual([active.id, command, killed]);
    expect(await list({ status: 'finished' })).toEqual([command, killed, bash]);
    expect(await list({ language: 'bash' })).toEqual([killed, bash]);
    expect(await list({ language: 'command' })).toEqual([active.id, command]);
    expect(await list({ cause: 'signal' })).toEqual([killed]);
    expect(await list({ cause: 'exited', server_id: 'two' })).toEqual([command]);
    expect(await list({ server_id: 'three' })).toEqual([]);
    const { data, next_cursor: cursor } = await one.runs.list(me, { limit: 1, language: 'bash' });
    expect(data.map(({ id }) => id)).toEqual([killed]);
    expect(await list({ language: 'bash', cursor: cursor ?? '' })).toEqual([bash]);
    await one.runs.cancel(me, active.id, 'req_test');
    await waitForExit(one, active);
  });

  it('yields the same events in another process as live, from any number', async () => {
    const me = createPrincipal();
    const run = await submit(one, me, `for i in 1 2 3; do echo $i é; sleep 0.05; printf '\\xff\\x00'; done`);
    const live = await collectEvents(one, run);
    const two = await open();
    expect(await collectEvents(two, run)).toEqual(live);
    expect(await collectEvents(two, run, 3)).toEqual(live.slice(3));
  });

  const KIB = 1024;
  const floods: [name: string, command: string, truncated: string[]][] = [
    ['little output', 'echo out; echo err >&2; exit 3', []],
    [
      'a flood and then a traceback',
      `head -c 3000000 /dev/zero | tr '\\0' x; echo; echo 'Traceback: the reason' >&2; exit 3`,
      ['stdout'],
    ],
    [
      'a traceback and then a flood',
      `echo 'Traceback: the reason' >&2; head -c 6000000 /dev/zero | tr '\\0' x; exit 3`,
      ['stdout'],
    ],
    [
      'errors during a flood',
      `head -c 1000000 /dev/zero; echo 'Traceback: the reason' >&2; head -c 6000000 /dev/zero; exit 3`,
      ['stdout'],
    ],
    [
      'floods on both streams',
      `for i in 1 2 3 4 5; do head -c 300000 /dev/zero | tr '\\0' a; head -c 300000 /dev/zero | tr '\\0' b >&2; done; echo 'the last line'; echo 'Traceback: the reason' >&2; exit 3`,
      ['stdout', 'stderr'],
    ],
    ['many characters of several bytes', `yes 'ä€😀' | head -n 300000; exit 3`, ['stdout']],
  ];
  it.each(floods)(
    'of %s is the same in memory, in the database, and from any number',
    async (_name, command, lost) => {
      const me = createPrincipal();
      const run = await submit(one, me, command);
      const [live, kept] = await Promise.all([collectEvents(one, run), readKept(one, run)]);
      // A viewer who reads receives everything.
      expect(live.map(({ seq }) => seq)).toEqual(live.map((_, at) => at + 1));
      const two = await open();
      expect(toComparable(await collectEvents(two, run))).toEqual(toComparable(kept));
      expect(toComparable(await readKept(two, run))).toEqual(toComparable(kept));
      for (const at of [1, 5, Math.floor(live.length / 2), live.length - 2]) {
        const afterSeq = live[at]?.seq ?? 0;
        const after = kept.filter(({ seq }) => seq > afterSeq);
        expect(toComparable(await collectEvents(two, run, afterSeq))).toEqual(toComparable(after));
      }
      const truncated = kept.flatMap(({ event }) => (event.type === 'truncated' ? [event] : []));
      expect(truncated.map(({ stream }) => stream).sort()).toEqual([...lost].sort());
      for (const stream of ['stdout', 'stderr'] as const) {
        const [all, some] = [outputText(live, stream), outputText(kept, stream)];
        const dropped = truncated.find((event) => event.stream === stream)?.droppedBytes ?? 0;
        expect(Buffer.byteLength(some) + dropped).toBe(Buffer.byteLength(all));
        const end = (text: string) =>
          Buffer.from(text)
            .subarray(-128 * KIB)
            .toString('latin1');
        expect(end(some)).toBe(end(all));
      }
      const head = outputText(
        kept.slice(
          0,
          kept.findIndex(({ event }) => event.type === 'truncated'),
        ),
      );
      if (lost.length === 1) expect(Buffer.byteLength(head)).toBeGreaterThanOrEqual(768 * KIB - 100);
      expect(kept.at(-1)?.event).toMatchObject({ type: 'exit', code: 3 });
    },
  );

  it('is pruned after its days, with the events, and keeps runs that are running', async () => {
    const me = createPrincipal();
    const [old, young] = [await submit(one, me, 'echo old'), await submit(one, me, 'echo young')];
    await waitForExit(one, old);
    await waitForExit(one, young);
    const going = await submit(one, me, 'sleep 600');
    await sql(`UPDATE runs SET created_at = now() - interval '9 days',
      finished_at = CASE WHEN id = '${old.id}' THEN now() - interval '4 days' ELSE finished_at END`);
    // The start prunes for the first time.
    await open({ settings: { historyDays: 3 } });
    const { data } = await one.runs.list(me, { cursor: undefined, limit: 10 });
    expect(data.map(({ id }) => id)).toEqual([going.id, young.id]);
    expect(await sql(`SELECT FROM run_events WHERE run_id = '${old.id}'`)).toEqual([]);
  });

  it('is deleted with its owner', async () => {
    const [me, other] = [createPrincipal(), createPrincipal()];
    const [own, others] = [await submit(one, me, 'true'), await submit(one, other, 'true')];
    await waitForExit(one, own);
    await waitForExit(one, others);
    await one.runs.removeUser(me.user.id);
    const left = await sql('SELECT DISTINCT run_id FROM run_events UNION SELECT id FROM runs');
    expect(left).toEqual([{ run_id: others.id }]);
  });
});

describe('the message of an exit', () => {
  it.each([
    [
      'timeout',
      'sleep 600',
      { timeout_ms: 300 },
      'The run was stopped after 0.3 s, its time limit (timeout_ms).',
    ],
    [
      'output_limit',
      'head -c 5000 /dev/zero; sleep 600',
      { limits: { max_output_bytes: 1000 } },
      'The run was stopped because it printed more than 1000 bytes, its limit (limits.max_output_bytes).',
    ],
    ['exited', 'exit 3', {}, null],
    ['signal', 'kill -9 $$', {}, null],
  ])('%s says which limit ended the program, where one did', async (cause, command, more, message) => {
    const me = createPrincipal();
    const run = await submit(one, me, command, 'one', more);
    expect(await waitForExit(one, run)).toMatchObject({ cause, message, durationMs: expect.any(Number) });
    expect(await one.runs.get(me, run.id)).toMatchObject({ cause, message });
  });
});

describe('the stored texts of a run', () => {
  const secret = () => {
    const value = `canary-${randomBytes(12).toString('hex')}`;
    evidence.registerSecret('canary', value);
    return value;
  };
  const asSecret = () => ({
    env: { TOKEN: secret() },
    stdin: secret(),
    files: [{ path: 'a', content: secret() }],
  });

  it('are encrypted: program, input, environment and output are not readable in the database', async () => {
    const me = createPrincipal();
    const given = asSecret();
    const inCode = secret();
    const run = await submit(one, me, `echo $TOKEN; cat; : ${inCode}; sleep 0.5`, 'one', given);
    await firstEvent(one, run, ({ event }) => event.type === 'output');
    const tables = () =>
      Promise.all([
        sql('SELECT * FROM runs'),
        sql('SELECT * FROM run_events'),
        sql('SELECT * FROM audit_events'),
      ]);
    const during = JSON.stringify(await tables());
    const seen = await collectEvents(one, run);
    const text = outputText(seen);
    expect(text).toContain(given.env.TOKEN);
    expect(text).toContain(given.stdin);
    const dump = during + JSON.stringify(await tables());
    for (const value of [given.env.TOKEN, given.stdin, given.files[0]?.content ?? '', inCode])
      expect(dump).not.toContain(value);
  });

  it('contain only the program after the run has finished, without input, environment and files', async () => {
    const me = createPrincipal();
    const given = asSecret();
    const run = await submit(one, me, 'true', 'one', given);
    await waitForExit(one, run);
    const [row] = await sql('SELECT sealed FROM runs');
    const kept = createKeyring([options.encryptionKey]).decrypt(String(row?.['sealed'])) ?? '';
    expect(kept).toContain('true');
    for (const value of [given.env.TOKEN, given.stdin, given.files[0]?.content ?? ''])
      expect(kept).not.toContain(value);
    expect((await one.runs.get(me, run.id)).program).toEqual({ command: 'true' });
  });

  it('decrypt only for their run: moved to another run they are not shown', async () => {
    const [me, other] = [createPrincipal(), createPrincipal()];
    const [own, others] = [await submit(one, me, 'echo mine'), await submit(one, other, 'echo theirs')];
    await waitForExit(one, own);
    await waitForExit(one, others);
    await sql(`UPDATE runs SET sealed = (SELECT sealed FROM runs WHERE id = '${others.id}')`);
    await sql(
      `UPDATE run_events SET sealed = (SELECT sealed FROM run_events WHERE run_id = '${others.id}' LIMIT 1)`,
    );
    const two = await open();
    expect((await two.runs.get(me, own.id)).program).toBeNull();
    const seen = await collectEvents(two, own);
    expect(outputText(seen)).toBe('');
    expect(seen.map(({ event }) => event)).toMatchObject([
      { type: 'truncated', stream: 'stdout', droppedBytes: 5 },
      { type: 'exit', cause: 'exited', code: 0 },
    ]);
  });

  it('are readable by the app only as their owner', async () => {
    const run = await submit(one, createPrincipal(), 'true');
    await waitForExit(one, run);
    const client = new pg.Client({ connectionString: urls.appUrl });
    await client.connect();
    for (const table of ['runs', 'run_events']) {
      expect((await client.query(`SELECT FROM ${table}`)).rowCount).toBe(0);
      await client.query(`SELECT set_config('ops_center.owner', 'user:somebody else', false)`);
      expect((await client.query(`SELECT FROM ${table}`)).rowCount).toBe(0);
    }
    await client.end();
  });
});

describe('while the database is unavailable', () => {
  it('viewers receive output and exit, and the history is completed afterwards', async () => {
    const me = createPrincipal();
    const run = await submit(one, me, 'echo before; read; echo after; exit 5', 'one', { stdin: 'x' });
    const slow = await submit(one, me, 'echo slow; sleep 1.5; echo done');
    await firstEvent(one, slow, ({ event }) => event.type === 'output');
    await waitForExit(one, run);
    const unblock = await blockDatabase(urls.appUrl);
    let seen;
    try {
      seen = await collectEvents(one, slow);
    } finally {
      await unblock();
    }
    expect(outputText(seen)).toBe('slow\ndone\n');
    expect(seen.at(-1)?.event).toMatchObject({ cause: 'exited', code: 0 });
    const two = await open();
    await until(
      async () => (await two.runs.get(me, slow.id)).status,
      (status) => status === 'finished',
    );
    expect(await collectEvents(two, slow)).toEqual(seen);
  });

  it('a run can be cancelled', async () => {
    const me = createPrincipal();
    const run = await submit(one, me, 'sleep 600');
    await firstEvent(one, run, ({ event }) => event.type === 'phase' && event.phase === 'started');
    const unblock = await blockDatabase(urls.appUrl);
    try {
      await expect(one.runs.cancel(me, run.id, 'req_test')).rejects.toThrow();
      expect(await waitForExit(one, run)).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    } finally {
      await unblock();
    }
  });
});
