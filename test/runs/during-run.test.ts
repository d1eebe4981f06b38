import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Response } from 'undici';
import type { RunDetails, RunResult } from '../../src/runs/schema.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { describeOn, sshHosts } from '../support/hosts.ts';
import { readRunEvents, joinOutput, type ReceivedRunEvent } from '../support/run-events.ts';
import { createServerClient, type ServerClient } from '../support/servers.ts';
import { adminClient } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { addSshServer, sshServerConfig } from './ssh-server.ts';

const MB = 1_000_000;

describeOn('ssh', 'a running run', () => {
  let app: TestApp;
  let ada: ServerClient;
  let serverId: string;
  /** The program of {@link programThatWaits} waits until this folder contains a file `go`. */
  let folder: string;

  beforeAll(async () => {
    app = await startApp({ env: { EGRESS_ALLOW: '127.0.0.1' } });
  }, 60_000);
  afterAll(() => app.stop());
  beforeEach(async () => {
    ada = await createServerClient(app);
    serverId = await addSshServer(ada);
    folder = mkdtempSync(path.join(tmpdir(), 'ops-runs-'));
    // The program runs under another account.
    chmodSync(folder, 0o755);
  }, 60_000);
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  const programThatWaits = () =>
    `echo begun; until [ -e ${folder}/go ]; do sleep 0.1; done; echo done; exit 3`;
  const createGoFile = () => {
    writeFileSync(path.join(folder, 'go'), '');
  };

  const run = ({ session }: ServerClient, id: string, json: object, headers = {}) =>
    app.call(`/api/v1/execution-servers/${id}/run`, { method: 'POST', session, json, headers });
  const details = async (id: string) =>
    (await (await app.call(`/api/v1/runs/${id}`, { session: ada.session })).json()) as RunDetails;

  /** Reads the events up to the first output. `rest` reads the others and returns all. */
  async function untilOutput(answer: Response) {
    const events = readRunEvents(answer);
    const seen: ReceivedRunEvent[] = [];
    while (seen.at(-1)?.event !== 'output') {
      const { done, value } = await events.next();
      if (done) throw new Error(`the run ended without output: ${JSON.stringify(seen.at(-1))}`);
      seen.push(value);
    }
    return {
      runId: seen[0]?.data.run_id ?? '',
      rest: async () => {
        for await (const one of events) seen.push(one);
        return seen;
      },
    };
  }

  async function expectWholeHistory(seen: ReceivedRunEvent[], runId: string): Promise<void> {
    expect(joinOutput(seen)).toBe('begun\ndone\n');
    expect(seen.at(-1)?.data).toMatchObject({ cause: 'exited', code: 3, cleanup: 'verified' });
    expect(await details(runId)).toMatchObject({
      ...{ server_id: serverId, server_name: 'A machine', server_type: 'ssh', status: 'finished' },
      ...{ cause: 'exited', code: 3, cleanup: 'verified', stdout_bytes: 'begun\ndone\n'.length },
    });
  }

  it('continues on the same host when its server is changed, and its history names the original server', async () => {
    const { runId, rest } = await untilOutput(await run(ada, serverId, { command: programThatWaits() }));
    const { host, port } = sshHosts().jump;
    await ada.change(serverId, { name: 'Another', connection_config: { ...sshServerConfig(), host, port } });
    expect(await details(runId)).toMatchObject({
      ...{ status: 'running', server_name: 'A machine', stdout_bytes: null, stderr_bytes: null },
    });
    createGoFile();
    await expectWholeHistory(await rest(), runId);
  });

  it('continues when its server is deleted, and its history is kept', async () => {
    const { runId, rest } = await untilOutput(await run(ada, serverId, { command: programThatWaits() }));
    await ada.remove(serverId);
    expect(await details(runId)).toMatchObject({ status: 'running' });
    createGoFile();
    await expectWholeHistory(await rest(), runId);
    const again = await run(ada, serverId, { command: 'true' });
    expect(again.status).toBe(404);
  });

  it('ends within 10 s when the tier of its user is lowered below that of runs', async () => {
    const { runId, rest } = await untilOutput(await run(ada, serverId, { command: programThatWaits() }));
    const admin = await adminClient();
    const { userProfileMetadata: _metadata, ...stored } =
      (await admin.users.findOne({ id: ada.user.id })) ?? {};
    const attributes = { ...stored.attributes, subscription_tier: ['trial'] };
    const loweredAtMs = performance.now();
    await admin.users.update({ id: ada.user.id }, { ...stored, attributes });
    const exit = { cause: 'cancelled', cleanup: 'verified' };
    expect((await rest()).at(-1)?.data).toMatchObject({ ...exit, message: expect.stringContaining('tier') });
    expect(performance.now() - loweredAtMs).toBeLessThan(10_000);
    expect(await details(runId)).toMatchObject({ status: 'finished', ...exit });
  });

  it('ends with a complete history when its viewer reads nothing, and does not delay other users’ runs', async () => {
    const bob = await createServerClient(app);
    const bobsServer = await addSshServer(bob);
    const body = JSON.stringify({
      command: `head -c ${30 * MB} /dev/zero; echo end`,
      limits: { max_output_bytes: 40 * MB },
    });
    const { port } = new URL(app.url);
    const socket = connect(Number(port), 'localhost').pause();
    await once(socket, 'connect');
    socket.write(
      [
        `POST /api/v1/execution-servers/${serverId}/run HTTP/1.1`,
        ...[`host: localhost:${port}`, `cookie: session=${ada.session}`, 'content-type: application/json'],
        ...['accept: text/event-stream', `content-length: ${body.length}`, '', body],
      ].join('\r\n'),
    );
    const runOf = async () => {
      const page = await app.call('/api/v1/runs', { session: ada.session });
      return ((await page.json()) as { data: { id: string; status: string }[] }).data[0];
    };
    const going = await until(runOf, (found) => found !== undefined);
    const others = await run(bob, bobsServer, { command: 'echo hello' }, { accept: 'application/json' });
    expect((await others.json()) as RunResult).toMatchObject({ stdout: 'hello\n', exit: { code: 0 } });
    await until(runOf, (found) => found?.status === 'finished', 60_000);
    expect(await details(going?.id ?? '')).toMatchObject({
      ...{ cause: 'exited', code: 0, cleanup: 'verified', stdout_bytes: 30 * MB + 'end\n'.length },
    });
    // The client has not read the response, and the connection is kept until the idle timeout.
    expect(socket.bytesRead).toBeLessThan(30 * MB);
    expect(socket.destroyed).toBe(false);
    socket.destroy();
  }, 120_000);
});
