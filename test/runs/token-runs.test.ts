import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { Principal } from '../../src/http/principal.ts';
import { fernetKey } from '../support/app.ts';
import { createDatabase } from '../support/database.ts';
import { createInstance, createPrincipal, submit, waitForExit, type Instance } from './instance.ts';

let shared: { databaseUrl: string; encryptionKey: string };
let one: Instance;
let me: Principal;
let byToken: Principal;

const PROGRAM = 'sleep 60';

async function open(settings = {}): Promise<Instance> {
  const instance = createInstance({ ...shared, settings });
  instance.conditions.tokenServers = new Set(['open']);
  await instance.start();
  return instance;
}

beforeEach(async () => {
  shared = { databaseUrl: (await createDatabase()).appUrl, encryptionKey: fernetKey() };
  me = createPrincipal();
  const token = { id: 'token', models: null, keyIds: null };
  byToken = { ...me, credential: 'token', scopes: new Set(['run']), token, sessionId: null };
  one = await open({ perServer: 1 });
});
afterEach(() => one.close());

describe('a run by a token', () => {
  it('starts only on a server whose owner allows runs by tokens', async () => {
    await expect(submit(one, byToken, 'echo x', 'closed')).rejects.toMatchObject({ code: 'scope_required' });
    expect((await waitForExit(one, await submit(one, byToken, 'echo x', 'open'))).code).toBe(0);
    expect((await waitForExit(one, await submit(one, me, 'echo x', 'closed'))).code).toBe(0);
  });

  it('does not start from the queue after the owner has withdrawn the permission', async () => {
    const first = await submit(one, me, PROGRAM, 'open');
    const queued = await submit(one, byToken, 'echo x', 'open');
    one.conditions.tokenServers = new Set();
    await one.runs.cancel(me, first.id, 'req_test');
    expect(await waitForExit(one, queued)).toMatchObject({ cause: 'cancelled' });
  });

  it('ends with its token, and with no other', async () => {
    const run = await submit(one, byToken, PROGRAM, 'open');
    const exit = waitForExit(one, run);
    one.activeWork.endToken('another token');
    expect(await one.runs.get(byToken, run.id)).toMatchObject({ status: 'running' });
    one.activeWork.endToken('token');
    expect(await exit).toMatchObject({ cause: 'cancelled' });
  });

  it('that waits in the queue does not start after its token was revoked', async () => {
    const first = await submit(one, me, PROGRAM, 'open');
    const queued = await submit(one, byToken, 'echo x', 'open');
    one.conditions.isSignInValid = false;
    await one.runs.cancel(me, first.id, 'req_test');
    expect(await waitForExit(one, queued)).toMatchObject({ cause: 'cancelled' });
  });
});

describe('a token', () => {
  it('lists, reads and cancels no run on a server that is closed to tokens', async () => {
    const [closed, visible] = [
      await submit(one, me, PROGRAM, 'closed'),
      await submit(one, me, PROGRAM, 'open'),
    ];
    const ids = async (principal: Principal) =>
      (await one.runs.list(principal, { cursor: undefined, limit: 10 })).data.map(({ id }) => id);
    expect((await ids(me)).sort()).toEqual([closed.id, visible.id].sort());
    expect(await ids(byToken)).toEqual([visible.id]);
    const notFound = { code: 'not_found' };
    await expect(one.runs.get(byToken, closed.id)).rejects.toMatchObject(notFound);
    await expect(one.runs.getProgress(byToken, closed.id)).rejects.toMatchObject(notFound);
    await expect(one.runs.cancel(byToken, closed.id, 'req_test')).rejects.toMatchObject(notFound);
    expect(await one.runs.get(me, closed.id)).toMatchObject({ status: 'running' });
    const exit = waitForExit(one, visible);
    await one.runs.cancel(byToken, visible.id, 'req_test');
    expect(await exit).toMatchObject({ cause: 'cancelled' });
    await one.runs.cancel(me, closed.id, 'req_test');
  });
});
