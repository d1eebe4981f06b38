import { expect, it } from '@jest/globals';
import { createRefusalCounts } from '../../src/usage/refusal-counts.ts';
import type { RefusalCount } from '../../src/usage/usage-store.ts';

const HOUR_MS = 3_600_000;
const ADA = 'user:ada';

function createCounts() {
  const clock = { now: 10 * HOUR_MS };
  const stored = new Map<string, RefusalCount>();
  const counts = createRefusalCounts(() => clock.now);
  const write = () =>
    counts.write((written) => {
      for (const count of written) stored.set(count.id, count);
      return Promise.resolve();
    });
  return { clock, counts, write, rows: () => [...stored.values()] };
}

it('counts by owner, code and minute, and writes what has changed', async () => {
  const { counts, write, rows, clock } = createCounts();
  for (let index = 0; index < 3; index += 1) counts.add(ADA, 'model_not_found');
  counts.add('user:bob', 'model_not_found');
  counts.add(ADA, 'rate_limited');
  await write();
  counts.add(ADA, 'rate_limited');
  clock.now += 60_000;
  counts.add(ADA, 'rate_limited');
  await write();
  expect(rows().map(({ owner, code, count }) => `${owner} ${code} ${count}`)).toEqual([
    'user:ada model_not_found 3',
    'user:bob model_not_found 1',
    'user:ada rate_limited 2',
    'user:ada rate_limited 1',
  ]);
  await counts.write(() => Promise.reject(new Error('nothing has changed')));
});

it('loses none when the clock goes back by an hour', async () => {
  const { counts, write, rows, clock } = createCounts();
  counts.add(ADA, 'rate_limited');
  clock.now += HOUR_MS;
  await write();
  clock.now -= HOUR_MS;
  counts.add(ADA, 'rate_limited');
  counts.add(ADA, 'rate_limited');
  await write();
  expect(rows().reduce((sum, { count }) => sum + count, 0)).toBe(3);
});

it('keeps the counts of a write that failed', async () => {
  const { counts, write, rows } = createCounts();
  counts.add(ADA, 'rate_limited');
  await expect(counts.write(() => Promise.reject(new Error('away')))).rejects.toThrow('away');
  await write();
  expect(rows()).toMatchObject([{ count: 1 }]);
});
