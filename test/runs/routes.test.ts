import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Response } from 'undici';
import type { RunDetails, RunPage, RunResult } from '../../src/runs/schema.ts';
import { startApp, type CallOptions, type TestApp } from '../support/app.ts';
import { describeOn, sshHosts } from '../support/hosts.ts';
import { readAllRunEvents, readRunEvents, joinOutput } from '../support/run-events.ts';
import { createServerClient, type Problem, type ServerClient } from '../support/servers.ts';
import { adminClient } from '../support/stack.ts';
import { bearer, createToken } from '../support/token.ts';
import { until } from '../support/until.ts';

describeOn('ssh', 'runs over HTTP', () => {
  let one: TestApp;
  let two: TestApp;
  let ada: ServerClient;
  let serverId: string;

  beforeAll(async () => {
    const env = { EGRESS_ALLOW: '127.0.0.1', RUNS_PER_USER: '4', RUNS_PER_SERVER: '3' };
    one = await startApp({ env });
    two = await startApp({ env, shared: one });
    ada = await createServerClient(one);
    serverId = await addServer(ada);
  });
  afterAll(async () => {
    await Promise.all([one, two].map((app) => app.stop()));
  });

  async function addServer(client: ServerClient): Promise<string> {
    const { plain, user, password } = sshHosts();
    const { id } = await client.add({
      name: 'A machine',
      connection_config: {
        ...{ host: plain.host, port: plain.port, username: user },
        ...{ auth_method: 'password', password },
      },
    });
    await client.confirm(id, plain.hostKey);
    return id;
  }

  const run = (json: object, options: CallOptions = {}, id = serverId) =>
    one.call(`/api/v1/execution-servers/${id}/run`, {
      method: 'POST',
      session: ada.session,
      json,
      ...options,
    });
  const runs = (path: string, options: CallOptions = {}, app = one) =>
    app.call(`/api/v1/runs${path}`, { session: ada.session, ...options });
  const waited = async (json: object) =>
    (await (await run(json, { headers: { accept: 'application/json' } })).json()) as RunResult;
  async function startAsync(json: object, id = serverId): Promise<string> {
    const answer = await run(json, { headers: { prefer: 'respond-async' } }, id);
    expect(answer.status).toBe(202);
    return ((await answer.json()) as { run_id: string }).run_id;
  }
  const details = async (id: string) => (await (await runs(`/${id}`)).json()) as RunDetails;
  async function problemOf(answer: Response): Promise<Problem> {
    const problem = (await answer.json()) as Problem;
    expect(answer.headers.get('content-type')).toContain('application/problem+json');
    return problem;
  }

  it('stream events numbered from 1 up to the exit, and appear in the list', async () => {
    const answer = await run({ language: 'python', code: 'import sys\nprint("héllo")\nsys.exit(3)' });
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-type')).toContain('text/event-stream');
    const seen = await readAllRunEvents(answer);
    expect(seen.map(({ id }) => id)).toEqual(seen.map((_, at) => at + 1));
    for (const { event, id, data } of seen) expect(data).toMatchObject({ type: event, seq: id });
    const phases = seen.flatMap(({ data }) => (data.phase === undefined ? [] : [data.phase]));
    expect(phases).toEqual(['preparing', 'started']);
    expect(joinOutput(seen)).toBe('héllo\n');
    const exit = seen.at(-1)?.data;
    expect(exit).toMatchObject({
      type: 'exit',
      ...{ cause: 'exited', code: 3, signal: null, cleanup: 'verified', message: null },
      duration_ms: expect.any(Number),
    });
    const id = exit?.run_id ?? '';
    expect(answer.headers.get('location')).toBe(`/api/v1/runs/${id}`);
    const { data } = (await (await runs('')).json()) as RunPage;
    expect(data[0]).toMatchObject({
      id,
      server_id: serverId,
      server_name: 'A machine',
      status: 'finished',
      code: 3,
    });
    expect(data[0]).not.toHaveProperty('program');
    expect(await details(id)).toMatchObject({ program: { language: 'python' } });
    expect(one.events('execution_server_used').at(-1)).toMatchObject({ id: serverId });
    const ended = await until(() => one.events('run_ended').find(({ run: ref }) => ref === id));
    expect(ended).toMatchObject({
      ...{ cause: 'exited', code: 3, cleanup: 'verified' },
      duration_ms: expect.any(Number),
    });
  });

  it('answer with the exit and the output when the client accepts JSON', async () => {
    const whole = await waited({ command: 'cat; echo err >&2', stdin: 'in' });
    expect(whole).toEqual({
      run_id: expect.stringMatching(/^run_/),
      exit: {
        ...{ cause: 'exited', code: 0, signal: null, cleanup: 'verified', message: null },
        duration_ms: expect.any(Number),
      },
      ...{
        stdout: 'in',
        stdout_encoding: 'utf8',
        stderr: 'err\n',
        stderr_encoding: 'utf8',
        truncated: false,
      },
    });
    const binary = await waited({ command: `printf '\\377\\000'` });
    expect(binary).toMatchObject({ stdout: '/wA=', stdout_encoding: 'base64' });
  });

  it('answer with the first 768 KiB and the end of each stream', async () => {
    const flood = await waited({
      command: `head -c 2000000 /dev/zero | tr '\\0' x; echo 'the last line'; echo 'Traceback: the reason' >&2; exit 1`,
    });
    expect(flood).toMatchObject({ truncated: true, exit: { code: 1 }, stderr: 'Traceback: the reason\n' });
    expect(flood.stdout).toMatch(/^x+the last line\n$/);
    expect(flood.stdout.length).toBeGreaterThanOrEqual((768 + 128) * 1024);
    expect(flood.stdout.length).toBeLessThan((768 + 128 + 2 * 64) * 1024);
  });

  it.each([
    ['language', { language: 'ruby', code: 'x' }, 'must be one of python, javascript, bash'],
    ['code', { language: 'bash', code: 5 }, 'must be text'],
    ['stdin', { command: 'true', stdin: [] }, 'must be text'],
    ['files.0.content', { command: 'true', files: [{ path: 'a' }] }, 'is required'],
    ['env.1', { command: 'true', env: { 1: 'x' } }, 'must be names of letters, digits and _'],
    [
      'limits',
      { command: 'true', limits: { memory: 5 } },
      'has members that are not known: memory (memory_bytes?)',
    ],
    ['body', { command: 'true', timeout: 5 }, 'has members that are not known: timeout (timeout_ms?)'],
  ])('are refused with a message for users about %s', async (path, json, message) => {
    const refused = (await (await run(json)).json()) as Problem;
    expect(refused).toMatchObject({ status: 400, errors: [{ path, message }] });
  });

  it('start asynchronously, and are resumed in another process from any event', async () => {
    const answer = await run(
      { command: 'for i in 1 2 3 4 5; do echo $i; sleep 0.1; done' },
      { headers: { prefer: 'respond-async' } },
    );
    expect(answer.status).toBe(202);
    expect(answer.headers.get('preference-applied')).toBe('respond-async');
    const { run_id: id } = (await answer.json()) as { run_id: string };
    expect(answer.headers.get('location')).toBe(`/api/v1/runs/${id}`);
    const live = await readAllRunEvents(await runs(`/${id}/events`, {}, two));
    expect(joinOutput(live)).toBe('1\n2\n3\n4\n5\n');
    const from = await readAllRunEvents(await runs(`/${id}/events?from=4`, {}, two));
    expect(from).toEqual(live.slice(3));
    const after = await readAllRunEvents(await runs(`/${id}/events`, { headers: { 'last-event-id': '4' } }));
    expect(after).toEqual(live.slice(4));
    const all = String(live.length);
    const none = await runs(`/${id}/events`, { headers: { 'last-event-id': all } });
    expect(none.status).toBe(204);
    expect((await runs(`/${id}/events?from=0`)).status).toBe(400);
    expect((await runs(`/${id}/events`, { headers: { 'last-event-id': 'x' } })).status).toBe(400);
  });

  it('are cancelled from another process; cancelling again has no effect', async () => {
    const answer = await run({ command: 'sleep 600 & while :; do :; done' });
    const id = answer.headers.get('location')?.split('/').at(-1) ?? '';
    const seen = [];
    for await (const one of readRunEvents(answer)) {
      seen.push(one);
      if (one.data.phase === 'started')
        expect((await runs(`/${id}`, { method: 'DELETE' }, two)).status).toBe(202);
    }
    expect(seen.at(-1)?.data).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    expect((await runs(`/${id}`, { method: 'DELETE' })).status).toBe(202);
    expect(await details(id)).toMatchObject({ cause: 'cancelled' });
    const audit = (await (await one.call('/api/v1/audit', { session: ada.session })).json()) as {
      data: { action: string; object: string }[];
    };
    const actions = audit.data.filter(({ object }) => object === `run:${id}`).map(({ action }) => action);
    expect(actions).toEqual(['run.cancelled', 'run.started']);
  });

  it('continue when their viewer disconnects, unless on_disconnect is cancel', async () => {
    for (const [asked, cause] of [
      ['continue', 'exited'],
      ['cancel', 'cancelled'],
    ] as const) {
      const leaving = new AbortController();
      const command = asked === 'continue' ? 'echo begun; sleep 1; echo done' : 'echo begun; sleep 600';
      const answer = await run({ command, on_disconnect: asked }, { signal: leaving.signal });
      const id = answer.headers.get('location')?.split('/').at(-1) ?? '';
      const events = readRunEvents(answer);
      for (let next = await events.next(); next.value?.event !== 'output';) next = await events.next();
      leaving.abort();
      await events.next().catch(() => undefined);
      const seen = await readAllRunEvents(await runs(`/${id}/events`));
      expect(seen.at(-1)?.data).toMatchObject({ cause, cleanup: 'verified' });
    }
  });

  it('are queued beyond the limit of the server, with their position', async () => {
    const started: string[] = [];
    for (let at = 0; at < 3; at += 1) started.push(await startAsync({ command: 'sleep 600' }));
    const queued = await startAsync({ command: 'echo my turn' });
    expect(await details(queued)).toMatchObject({ status: 'queued', started_at: null, cause: null });
    const watching = readAllRunEvents(await runs(`/${queued}/events`, {}, two));
    for (const id of started) await runs(`/${id}`, { method: 'DELETE' });
    const seen = await watching;
    expect(seen[0]?.data).toMatchObject({ type: 'phase', phase: 'queued', position: 1 });
    expect(joinOutput(seen)).toBe('my turn\n');
  });

  it('start on the default server with the id default', async () => {
    const answer = await run({ command: 'echo default' }, {}, 'default');
    expect(joinOutput(await readAllRunEvents(answer))).toBe('default\n');
    const bob = await createServerClient(one);
    const refused = await run({ command: 'true' }, { session: bob.session }, 'default');
    expect(await problemOf(refused)).toMatchObject({ status: 404, code: 'no_default_server' });
  });

  it('of a token end in another process within 10 s of its revocation', async () => {
    const { id: tokenId, token } = await createToken(one, ada.session, { scopes: ['run'] });
    await ada.change(serverId, { token_runs: true });
    const byToken = { headers: bearer(token) };
    const started = await two.call(`/api/v1/execution-servers/${serverId}/run`, {
      ...{ method: 'POST', json: { command: 'echo begun; sleep 60' } },
      headers: { ...bearer(token), accept: 'text/event-stream' },
    });
    const events = readRunEvents(started);
    let runId = '';
    for await (const { event, data } of events) {
      runId = data.run_id;
      if (event === 'output') break;
    }
    expect(runId).not.toBe('');
    const revokedAt = performance.now();
    const revoked = await one.call(`/api/v1/tokens/${tokenId}`, { method: 'DELETE', session: ada.session });
    expect(revoked.status).toBe(200);
    const exit = await until(
      () => details(runId),
      ({ status }) => status === 'finished',
      10_000,
    );
    expect(performance.now() - revokedAt).toBeLessThan(10_000);
    expect(exit).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    for (const app of [one, two]) expect((await app.call('/api/v1/runs', byToken)).status).toBe(401);
  });

  it('are refused before they start, with a reason and without an entry in the history', async () => {
    const { data: before } = (await (await runs('')).json()) as RunPage;
    const eve = await createServerClient(one);
    const pausedId = await addServer(ada);
    await ada.change(pausedId, { is_active: false });
    const { plain, user, password } = sshHosts();
    const unconfirmed = await ada.add({
      connection_config: {
        ...{ host: plain.host, port: plain.port, username: user },
        ...{ auth_method: 'password', password },
      },
    });
    const json = { command: 'true' };
    const refusals: [Promise<Response>, object][] = [
      [run(json, { session: eve.session }), { status: 404, code: 'not_found' }],
      [run(json, {}, 'nothing'), { status: 404, code: 'not_found' }],
      [run(json, {}, pausedId), { status: 409, code: 'server_paused' }],
      [run(json, {}, unconfirmed.id), { status: 409, code: 'host_key_unconfirmed' }],
      [
        run({ ...json, limits: { memory_bytes: 1_000_000_000, pids: 5 } }),
        {
          ...{ status: 422, code: 'limit_unsupported' },
          errors: expect.arrayContaining([expect.objectContaining({ path: 'limits.pids' })]),
        },
      ],
      [run(json, { headers: { 'sec-fetch-site': 'cross-site' } }), { status: 403, code: 'csrf' }],
    ];
    for (const [answer, expected] of refusals) expect(await problemOf(await answer)).toMatchObject(expected);
    await ada.remove(unconfirmed.id);
    await ada.remove(pausedId);
    expect((await problemOf(await run(json, {}, pausedId))).code).toBe('not_found');
    const { data: after } = (await (await runs('')).json()) as RunPage;
    expect(after).toEqual(before);
  });

  it.each([
    'status=done',
    'language=perl',
    'cause=x',
    'server_id=',
    'server_id=a%00b',
    'cursor=x',
    'user_id=x',
  ])('are not listed for %s', async (query) => {
    const refused = await problemOf(await runs(`?${query}`));
    const [path] = query.split('=');
    expect(refused).toMatchObject({ status: 400, code: 'validation_failed' });
    expect(JSON.stringify(refused)).toContain(path === 'user_id' ? 'user_id' : `"path":"${path}"`);
  });

  it('start once for all requests with the same Idempotency-Key', async () => {
    const headers = { prefer: 'respond-async', 'idempotency-key': 'one-run' };
    const json = { command: 'echo once' };
    const [first, again] = [await run(json, { headers }), await run(json, { headers })];
    expect([first.status, again.status]).toEqual([202, 202]);
    expect([first, again].map((answer) => answer.headers.get('idempotent-replayed'))).toEqual([null, 'true']);
    const { run_id: id } = (await first.json()) as { run_id: string };
    expect([again.headers.get('location'), await again.json()]).toEqual([
      `/api/v1/runs/${id}`,
      { run_id: id },
    ]);
    const result = await run(json, { headers: { ...headers, prefer: '', accept: 'application/json' } });
    expect(await result.json()).toMatchObject({ run_id: id, stdout: 'once\n', exit: { code: 0 } });
    const refused = await run({ command: 'echo twice' }, { headers });
    expect(await problemOf(refused)).toMatchObject({ status: 422, code: 'idempotency_key_reused' });
    const { data } = (await (await runs('?limit=2')).json()) as RunPage;
    expect(data.map((each) => each.id).indexOf(id)).toBe(0);
  });

  it('are listed by what they ran', async () => {
    const id = await startAsync({ command: 'sleep 600' });
    const list = async (query: string) =>
      ((await (await runs(`?${query}`)).json()) as RunPage).data.map((each) => each.id);
    const { server_id: server } = (await details(id)) as { server_id: string };
    expect(await list(`server_id=${server}&language=command&status=running`)).toContain(id);
    expect(await list('status=finished&limit=200')).not.toContain(id);
    await runs(`/${id}`, { method: 'DELETE' });
  });

  it('cannot be read or cancelled by other users', async () => {
    const eve = await createServerClient(one);
    const id = await startAsync({ command: 'sleep 600' });
    for (const [path, method] of [
      [`/${id}`, 'GET'],
      [`/${id}/events`, 'GET'],
      [`/${id}`, 'DELETE'],
    ] as const)
      expect(await problemOf(await runs(path, { method, session: eve.session }))).toMatchObject({
        status: 404,
      });
    expect(await (await runs('', { session: eve.session })).json()).toEqual({ data: [], next_cursor: null });
    expect(await details(id)).toMatchObject({ status: 'running', stdout_bytes: null, stderr_bytes: null });
    await runs(`/${id}`, { method: 'DELETE' });
  });

  it('need the Starter tier to start; a user below it can still read and cancel runs', async () => {
    const eve = await createServerClient(one, 'starter');
    const id = await addServer(eve);
    const as = { session: eve.session };
    const answer = await run({ command: 'sleep 600' }, { ...as, headers: { prefer: 'respond-async' } }, id);
    const { run_id: runId } = (await answer.json()) as { run_id: string };
    await (
      await adminClient()
    ).users.update(
      { id: eve.user.id },
      {
        ...{ email: eve.user.email, firstName: 'Test', lastName: 'User' },
        attributes: { subscription_tier: ['trial'] },
      },
    );
    const refused = await until(
      () => run({ command: 'true' }, { ...as, headers: { accept: 'application/json' } }, id),
      ({ status }) => status !== 200,
    );
    expect(await problemOf(refused)).toMatchObject({
      ...{ status: 403, code: 'tier_required', required_tier: 'starter' },
    });
    expect((await runs(`/${runId}`, as)).status).toBe(200);
    expect((await runs(`/${runId}`, { ...as, method: 'DELETE' })).status).toBe(202);
    const seen = await readAllRunEvents(await runs(`/${runId}/events`, as));
    expect(seen.at(-1)?.data).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
  });

  it('end with the sign-in, and so do the responses to their viewers', async () => {
    const eve = await createServerClient(one);
    const id = await addServer(eve);
    const answer = await run({ command: 'echo begun; sleep 600' }, { session: eve.session }, id);
    const runId = answer.headers.get('location')?.split('/').at(-1) ?? '';
    const events = readRunEvents(answer);
    for (let next = await events.next(); next.value?.event !== 'output';) next = await events.next();
    await one.call('/auth/logout', { method: 'POST', session: eve.session });
    for await (const { event } of events) expect(event).toBe('exit');
    const session = await one.signIn(eve.user);
    const ended = await until(
      async () => (await (await runs(`/${runId}`, { session })).json()) as RunDetails,
      ({ status }) => status === 'finished',
    );
    expect(ended).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
    expect(ended.message).toMatch(/sign-in/);
  });

  it('end verified when the app stops, with the exit sent to viewers; queued runs start in the next app', async () => {
    const env = { EGRESS_ALLOW: '127.0.0.1', RUNS_PER_USER: '1', SHUTDOWN_GRACE_MS: '300' };
    const third = await startApp({ env });
    const eve = await createServerClient(third);
    const id = await addServer(eve);
    const start = (command: string) =>
      third.call(`/api/v1/execution-servers/${id}/run`, {
        method: 'POST',
        session: eve.session,
        json: { command },
      });
    const going = await start('echo begun; sleep 600');
    const queued = await start('echo afterwards');
    const events = readRunEvents(going);
    for (let next = await events.next(); next.value?.event !== 'output';) next = await events.next();
    const waiting = readAllRunEvents(queued);
    await third.stop();
    const rest = [];
    for await (const { data } of events) rest.push(data);
    expect(rest).toMatchObject([
      { cause: 'cancelled', cleanup: 'verified', message: expect.stringContaining('stopped') },
    ]);
    expect((await waiting).map(({ data }) => data.phase)).toEqual(['queued']);
    const fourth = await startApp({ env, shared: third });
    const queuedId = queued.headers.get('location')?.split('/').at(-1) ?? '';
    const seen = await readAllRunEvents(
      await fourth.call(`/api/v1/runs/${queuedId}/events`, { session: eve.session }),
    );
    expect(joinOutput(seen)).toBe('afterwards\n');
    await fourth.stop();
  });
});
