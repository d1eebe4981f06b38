import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createRefusalTrail, writeAuditEvent } from '../../src/audit/service.ts';
import { createLog } from '../../src/lib/log.ts';
import { userOwner, type Owner } from '../../src/lib/owner.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { randomId } from '../../src/lib/ids.ts';
import { blockDatabase, createDatabase } from '../support/database.ts';

let database: Database;
let url: string;
const log = createLog('silent');

beforeAll(async () => {
  url = (await createDatabase()).appUrl;
  database = openDatabase({ url, max: 8, applicationName: 'test', log });
});
afterAll(() => database.close());

const createOwner = () => userOwner(randomId());
const refusal = (owner: Owner, object = 'route:POST /x', requestId = 'r') => ({ owner, object, requestId });

const Row = z.object({ id: z.string(), object: z.string(), request_id: z.string(), count: z.number() });
const readRows = (owner: Owner) =>
  database.withOwner(owner, (sql) =>
    sql.rows(Row, 'SELECT id, object, request_id, count FROM audit_events ORDER BY id'),
  );
const countsOf = async (owner: Owner) => (await readRows(owner)).map(({ object, count }) => [object, count]);

it('many refusals of a route are one row, which is written with the first and gets their number', async () => {
  const trail = createRefusalTrail({ database, log });
  const [alice, bob] = [createOwner(), createOwner()];
  await trail.record(refusal(alice, 'route:POST /x', 'first'));
  expect(await countsOf(alice)).toEqual([['route:POST /x', 1]]);
  await Promise.all(
    Array.from({ length: 500 }, (_, index) => trail.record(refusal(alice, 'route:POST /x', `r${index}`))),
  );
  await Promise.all(Array.from({ length: 20 }, () => trail.record(refusal(alice, 'route:PUT /y'))));
  await trail.record(refusal(bob));
  expect((await readRows(alice)).length).toBe(2);
  await trail.flush();
  expect(await countsOf(alice)).toEqual([
    ['route:POST /x', 501],
    ['route:PUT /y', 20],
  ]);
  expect((await readRows(alice))[0]?.request_id).toBe('first');
  expect(await countsOf(bob)).toEqual([['route:POST /x', 1]]);
});

it('a refusal after that minute is a new row', async () => {
  const trail = createRefusalTrail({ database, log });
  const owner = createOwner();
  for (let minute = 0; minute < 2; minute += 1) {
    await trail.record(refusal(owner));
    await trail.flush();
  }
  expect(await countsOf(owner)).toEqual([
    ['route:POST /x', 1],
    ['route:POST /x', 1],
  ]);
});

it('a refusal that cannot be written is an error, and the next one is written', async () => {
  const trail = createRefusalTrail({ database, log });
  const owner = createOwner();
  const unblock = await blockDatabase(url);
  await expect(trail.record(refusal(owner))).rejects.toMatchObject({ code: 'database_unavailable' });
  await unblock();
  await trail.record(refusal(owner));
  expect(await countsOf(owner)).toEqual([['route:POST /x', 1]]);
});

it('the role of the app changes nothing but the number of its own recent refusals, and only upwards', async () => {
  const [alice, bob] = [createOwner(), createOwner()];
  const write = (owner: Owner, action: 'tier.refused' | 'key.added') =>
    database.withOwner(owner, (sql) =>
      writeAuditEvent(sql, { owner, actor: owner, action, object: 'o', requestId: 'r' }),
    );
  const [refused, added, other] = [
    await write(alice, 'tier.refused'),
    await write(alice, 'key.added'),
    await write(bob, 'tier.refused'),
  ];
  await database.withOwner(alice, async (sql) => {
    for (const [id, count] of [
      [refused, 7],
      [refused, 3],
      [added, 7],
      [other, 7],
    ])
      await sql.run('SELECT count_refusals($1, $2)', [id, count]);
  });
  expect(await countsOf(alice)).toEqual([
    ['o', 7],
    ['o', 1],
  ]);
  expect(await countsOf(bob)).toEqual([['o', 1]]);
  await expect(
    database.withOwner(alice, (sql) => sql.run('UPDATE audit_events SET count = 9')),
  ).rejects.toMatchObject({ code: '42501' });
});
