import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../support/app.ts';
import { describeOn } from '../support/hosts.ts';
import { makeOperator } from '../support/operator.ts';
import { readRunEvents, type ReceivedRunEvent } from '../support/run-events.ts';
import { createServerClient, randomPassword, type ServerClient } from '../support/servers.ts';

const LOCAL = { name: 'Here', server_type: 'local' as const, connection_config: {} };

async function features({ session }: ServerClient, app: TestApp): Promise<unknown> {
  const me = (await (await app.call('/api/v1/me', { session })).json()) as { features: unknown };
  return me.features;
}

describe('with local execution off', () => {
  it('a local server cannot be added or tested, not even by an operator', async () => {
    await using app = await startApp();
    const ada = await createServerClient(app);
    await makeOperator(ada.user.id);
    expect(await features(ada, app)).toEqual({ byok: true, execution_servers: true, local_execution: false });
    for (const [path, json] of [
      ['', LOCAL],
      ['/test', { server_type: 'local', connection_config: {} }],
    ] as const)
      expect(await ada.expectRefusal('POST', path, json)).toMatchObject({
        status: 400,
        code: 'validation_failed',
        errors: [{ path: 'server_type', message: expect.stringMatching(/LOCAL_EXECUTION/) }],
      });
  });
});

describeOn('local', 'with local execution on', () => {
  let app: TestApp;

  beforeAll(async () => {
    app = await startApp({ env: { LOCAL_EXECUTION: 'true' } });
  });
  afterAll(async () => {
    await app.stop();
  });

  it('a user without the role gets an error that names the role', async () => {
    const ada = await createServerClient(app);
    expect(await features(ada, app)).toMatchObject({ execution_servers: true, local_execution: false });
    expect(await ada.expectRefusal('POST', '', LOCAL)).toMatchObject({
      ...{ status: 403, code: 'scope_required', required_role: 'ops-operator' },
      detail: expect.stringMatching(/needs the role ops-operator/),
    });
  });

  it('an operator below the Starter tier cannot use it', async () => {
    const ada = await createServerClient(app, 'free');
    await makeOperator(ada.user.id);
    expect(await features(ada, app)).toEqual({
      byok: false,
      execution_servers: false,
      local_execution: false,
    });
    expect(await ada.expectRefusal('POST', '', LOCAL)).toMatchObject({ status: 403, code: 'tier_required' });
  });

  it('an operator can use it; after the loss of the role the server can only be read and deleted', async () => {
    const ada = await createServerClient(app);
    const takeAway = await makeOperator(ada.user.id);
    expect(await features(ada, app)).toMatchObject({ local_execution: true });
    const setup = `export TOKEN=${randomPassword()}`;
    const { id } = await ada.add({ ...LOCAL, connection_config: { setup } });
    expect(await ada.get(id)).toMatchObject({
      ...{ server_type: 'local', host_key: null, is_default: true },
      connection_config: { setup: '***stored***' },
    });
    const tested = await ada.test(id);
    expect(tested).toMatchObject({ status: 'online', details: { host_key: null } });
    expect(tested.details.stages).toContainEqual(expect.objectContaining({ name: 'setup', status: 'ok' }));
    await takeAway();
    for (const [method, path, json] of [
      ['POST', `/${id}/test`],
      ['PUT', `/${id}`, { name: 'x' }],
      ['POST', '', LOCAL],
    ] as const)
      expect(await ada.expectRefusal(method, path, json)).toMatchObject({
        status: 403,
        code: 'scope_required',
      });
    expect(await ada.get(id)).toMatchObject({ name: 'Here' });
    await ada.remove(id);
  });
});

describeOn('local', 'a local run', () => {
  it('ends within 10 s when its user loses the role, with a message that names the role', async () => {
    await using app = await startApp({ env: { LOCAL_EXECUTION: 'true' } });
    const ada = await createServerClient(app);
    const takeAway = await makeOperator(ada.user.id);
    const { id } = await ada.add(LOCAL);
    const command = 'echo begun; while :; do sleep 1; done';
    const seen: ReceivedRunEvent[] = [];
    let removedAtMs = 0;
    for await (const one of readRunEvents(await ada.send('POST', `/${id}/run`, { command }))) {
      seen.push(one);
      if (one.event !== 'output') continue;
      removedAtMs = performance.now();
      await takeAway();
    }
    expect(performance.now() - removedAtMs).toBeLessThan(10_000);
    expect(seen.at(-1)?.data).toMatchObject({
      ...{ type: 'exit', cause: 'cancelled', cleanup: 'verified' },
      message: expect.stringContaining('ops-operator'),
    });
  });
});

describeOn('local', 'with limits of the operator for local runs', () => {
  it('a run that requests more is refused and names what is allowed', async () => {
    const env = {
      LOCAL_EXECUTION: 'true',
      LOCAL_MAX_MEMORY_BYTES: '67108864',
      LOCAL_MAX_CPUS: '0.5',
      LOCAL_MAX_PIDS: '20',
    };
    await using app = await startApp({ env });
    const ada = await createServerClient(app);
    await makeOperator(ada.user.id);
    const { id } = await ada.add(LOCAL);
    const run = (limits: object) =>
      ada.send(
        'POST',
        `/${id}/run`,
        { command: 'true', limits },
        { headers: { accept: 'application/json' } },
      );
    for (const [limits, allowed] of [
      [{ memory_bytes: 67_108_865 }, 'memory_bytes up to 67108864'],
      [{ cpus: 0.6 }, 'cpus up to 0.5'],
      [{ pids: 21, memory_bytes: 2 ** 30 }, 'memory_bytes up to 67108864, pids up to 20'],
    ] as const) {
      const response = await run(limits);
      expect(response.status).toBe(422);
      expect(await response.json()).toMatchObject({
        code: 'limit_unsupported',
        detail: `The operator allows ${allowed} on Here. Request less.`,
      });
    }
    const response = await run({ memory_bytes: 67_108_864, cpus: 0.5, pids: 20 });
    expect(await response.json()).toMatchObject({ exit: { code: 0 } });
  });
});
