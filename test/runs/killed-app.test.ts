import { afterEach, beforeEach, expect, it } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fetch } from 'undici';
import { freePort } from '../support/free-port.ts';
import type { RunDetails } from '../../src/runs/schema.ts';
import { compileCache } from '../support/compile-cache.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { describeOn } from '../support/hosts.ts';
import { readAllRunEvents, readRunEvents } from '../support/run-events.ts';
import { createServerClient, type ServerClient } from '../support/servers.ts';
import { createWebClient } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { addSshServer } from './ssh-server.ts';

const MAIN = path.resolve(import.meta.dirname, '..', '..', 'src', 'cli', 'main.ts');
/** The default lease, with a margin for a busy machine. */
const LOST_WITHIN_MS = 100_000;

describeOn('ssh', 'an app that is killed during a run', () => {
  let survivor: TestApp;
  let ada: ServerClient;
  let cwd: string;
  let child: ChildProcess;
  let childUrl: string;

  beforeEach(async () => {
    survivor = await startApp({ env: { EGRESS_ALLOW: '127.0.0.1' } });
    ada = await createServerClient(survivor);
    cwd = mkdtempSync(path.join(tmpdir(), 'ops-killed-'));
    const port = await freePort();
    childUrl = `http://localhost:${port}`;
    child = spawn(process.execPath, [MAIN, 'serve'], {
      cwd,
      env: await environmentFor(port),
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    await until(
      () => child.exitCode !== null || fetch(childUrl).then(Boolean, () => false),
      Boolean,
      LOST_WITHIN_MS,
    );
  }, 2 * LOST_WITHIN_MS);
  afterEach(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    await survivor.stop();
    rmSync(cwd, { recursive: true });
  });

  /** The environment of a second process with the survivor's database and keys, so that its sessions are valid there. */
  async function environmentFor(port: number): Promise<Record<string, string>> {
    const { config, databaseUrl } = survivor;
    const { keycloak } = config;
    const webClient = await createWebClient(childUrl);
    return {
      ...compileCache(),
      PATH: '/usr/bin:/bin',
      PORT: String(port),
      METRICS_PORT: String(await freePort()),
      PUBLIC_URL: childUrl,
      DATABASE_URL: databaseUrl,
      ENCRYPTION_KEY: config.encryptionKeys.join(','),
      SESSION_SECRET: config.sessionSecret,
      KEYCLOAK_URL: keycloak.url,
      KEYCLOAK_WEB_CLIENT_ID: webClient.id,
      KEYCLOAK_WEB_CLIENT_SECRET: webClient.secret,
      KEYCLOAK_SERVICE_CLIENT_SECRET: keycloak.service.secret,
      KEYCLOAK_VAULT_CLIENT_SECRET: keycloak.vault.secret,
      EGRESS_ALLOW: '127.0.0.1',
    };
  }

  /**
   * Starts a long program in the child, and by it a process that has nothing of the run but an ancestor.
   * @returns the run's id, and the ids of both processes on the host.
   */
  async function startInChild(serverId: string): Promise<{ id: string; pids: string[] }> {
    const detached = `env -i setsid sh -c 'cd /; echo $$; exec >/dev/null 2>&1 </dev/null; exec sleep 600'`;
    const answer = await fetch(`${childUrl}/api/v1/execution-servers/${serverId}/run`, {
      method: 'POST',
      headers: { cookie: `session=${ada.session}`, 'content-type': 'application/json' },
      body: JSON.stringify({ command: `pid=$(${detached} &); echo "$$ $pid"; sleep 600` }),
    });
    if (answer.status !== 200)
      throw new Error(`responded with status ${answer.status}: ${await answer.text()}`);
    for await (const { data } of readRunEvents(answer)) {
      if (data.type === 'output') return { id: data.run_id, pids: (data.data ?? '').trim().split(' ') };
      if (data.type === 'exit') throw new Error(`ended: ${JSON.stringify(data)}`);
    }
    throw new Error('the events ended before the first output');
  }

  const listAlive = ({ pids }: { pids: string[] }) => pids.filter((pid) => existsSync(`/proc/${pid}`));

  it(
    'leaves no process on the host: another app ends the run as lost, also on a paused server',
    async () => {
      const [one, two] = [await addSshServer(ada), await addSshServer(ada)];
      const [kept, paused] = [await startInChild(one), await startInChild(two)];
      for (const run of [kept, paused]) expect(listAlive(run)).toHaveLength(2);
      await ada.change(two, { is_active: false });
      child.kill('SIGKILL');
      await once(child, 'exit');
      // The host ends both runs, but its report is lost with the connection.
      const cleanup = 'unverified';
      for (const run of [kept, paused]) {
        const watched = await survivor.call(`/api/v1/runs/${run.id}/events`, { session: ada.session });
        const seen = await readAllRunEvents(watched);
        expect(seen.at(-1)?.data).toMatchObject({ type: 'exit', cause: 'lost', code: null, cleanup });
        const details = await survivor.call(`/api/v1/runs/${run.id}`, { session: ada.session });
        expect((await details.json()) as RunDetails).toMatchObject({
          ...{ status: 'finished', cause: 'lost', cleanup },
        });
        const lost = await until(() => survivor.events('run_lost').find((event) => event['run'] === run.id));
        expect(lost).toMatchObject({ cleanup });
        await until(() => listAlive(run).length === 0);
      }
    },
    2 * LOST_WITHIN_MS,
  );
});
