import { afterAll, beforeAll, it } from '@jest/globals';
import { startApp, type TestApp } from '../test/support/app.ts';
import { openAiKey } from '../test/support/key.ts';
import { createUser } from '../test/support/stack.ts';
import { printTimes } from './table.ts';

const ROUNDS = 100;
const POOL = 10;
const BUSY_ADDS = 50;

let app: TestApp;

beforeAll(async () => {
  app = await startApp();
});
afterAll(() => app.stop());

/** @throws Error for another status: the time of a refusal is not of interest. */
async function timed(
  path: string,
  options: Parameters<TestApp['call']>[1],
  statuses: readonly number[],
): Promise<number> {
  const startedAtMs = performance.now();
  const answer = await app.call(path, options);
  const text = await answer.text();
  if (!statuses.includes(answer.status)) throw new Error(`${path}: ${answer.status} ${text}`);
  return performance.now() - startedAtMs;
}

const signIn = async () => app.signIn(await createUser({ tier: 'starter' }));
const list = (session: string) => timed('/api/v1/byok/keys', { session }, [200]);
const add = (session: string, statuses = [201]) => {
  const json = { provider: 'openai', key: openAiKey() };
  return timed('/api/v1/byok/keys/add', { method: 'POST', session, json }, statuses);
};
const deleteAll = (session: string) =>
  timed('/api/v1/byok/keys/openai', { method: 'DELETE', session }, [200, 404]);

/** Lists keys repeatedly until `work` is finished. */
async function listDuring(session: string, work: Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  const finished = new AbortController();
  void work.finally(() => {
    finished.abort();
  });
  while (!finished.signal.aborted) times.push(await list(session));
  return times;
}

it('measures adding and listing keys', async () => {
  const session = await signIn();
  const [adding, listing]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    if (round % POOL === 0) await deleteAll(session);
    adding.push(await add(session));
    listing.push(await list(session));
  }
  const cached: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) cached.push(await list(session));
  printTimes('keys of one user, pools of up to 10', {
    'adding a key': adding,
    'listing right after a change': listing,
    'listing again': cached,
  });
});

it('measures the effect of 50 concurrent adds by one user on the listing of another', async () => {
  const [writer, reader] = [await signIn(), await signIn()];
  await add(reader);
  const idle: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) idle.push(await list(reader));
  const busy: number[] = [];
  while (busy.length < ROUNDS) {
    await deleteAll(writer);
    const adds = Promise.all(Array.from({ length: BUSY_ADDS }, () => add(writer, [201, 409])));
    busy.push(...(await listDuring(reader, adds)));
  }
  printTimes('listing keys', {
    'without other requests': idle,
    'while another user adds 50 concurrently': busy,
  });
});
