import { once } from 'node:events';
import { connect } from 'node:net';
import { afterAll, beforeAll, it } from '@jest/globals';
import { startApp, type TestApp } from '../test/support/app.ts';
import { describeOn, sshHosts } from '../test/support/hosts.ts';
import { readRunEvents } from '../test/support/run-events.ts';
import { createServerClient, type ServerClient } from '../test/support/servers.ts';
import { printTimes } from './table.ts';

const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 50);
const MB = 1_000_000;

describeOn('ssh', 'runs over HTTP', () => {
  let app: TestApp;
  let ada: ServerClient;
  let path: string;

  beforeAll(async () => {
    app = await startApp({ env: { EGRESS_ALLOW: '127.0.0.1', LOG_LEVEL: 'warn' } });
    ada = await createServerClient(app);
    const { plain, user, password } = sshHosts();
    const account = { host: plain.host, port: plain.port, username: user, auth_method: 'password', password };
    const { id } = await ada.add({ connection_config: account });
    await ada.confirm(id, plain.hostKey);
    path = `/api/v1/execution-servers/${id}/run`;
  });
  afterAll(async () => {
    await app.stop();
  });

  const run = (json: object) => app.call(path, { method: 'POST', session: ada.session, json });

  it('from the request to each event of echo', async () => {
    const times: Record<string, number[]> = {};
    for (let round = 0; round < ROUNDS + 5; round += 1) {
      const sentAtMs = performance.now();
      const answer = await run({ command: 'echo hello' });
      const note = (name: string) => {
        if (round >= 5) (times[name] ??= []).push(performance.now() - sentAtMs);
      };
      note('response headers');
      for await (const { event, data } of readRunEvents(answer)) note(data.phase ?? event);
    }
    printTimes('A run over HTTP: echo on a warm SSH server, time since the request', times);
  });

  it('100 MB of output with a viewer that does not read', async () => {
    const viewer = connect({ port: Number(new URL(app.url).port), host: '127.0.0.1' });
    await once(viewer, 'connect');
    const body = JSON.stringify({
      command: `head -c ${100 * MB} /dev/zero | tr '\\0' x`,
      limits: { max_output_bytes: 200 * MB },
    });
    const growthMb: number[] = [];
    const before = process.memoryUsage().rss;
    const head = [
      `POST ${path} HTTP/1.1`,
      `host: ${new URL(app.url).host}`,
      `cookie: session=${ada.session}`,
    ];
    const rest = ['content-type: application/json', `content-length: ${Buffer.byteLength(body)}`, '', body];
    viewer.pause();
    viewer.write([...head, ...rest].join('\r\n'));
    const watching = setInterval(() => growthMb.push((process.memoryUsage().rss - before) / MB), 10);
    for (let status = ''; status !== 'finished';) {
      const answer = await app.call('/api/v1/runs?limit=1', { session: ada.session });
      const { data } = (await answer.json()) as { data: { status: string; stdout_bytes: number }[] };
      status = data[0]?.stdout_bytes === 100 * MB ? data[0].status : '';
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    clearInterval(watching);
    viewer.destroy();
    process.stdout.write(
      `\n100 MB, stalled viewer: resident memory grew by ${Math.max(...growthMb).toFixed(1)} MB\n`,
    );
  });
});
