import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, it } from '@jest/globals';
import { startApp, type TestApp } from '../test/support/app.ts';
import { addKey, openAiKey } from '../test/support/key.ts';
import { measureRetainedBytes } from '../test/support/retained-bytes.ts';
import { createUser } from '../test/support/stack.ts';
import { startUpstreamProcess, type UpstreamProcess } from './load/chat-probe.ts';
import { postWithoutReading } from './load/raw-request.ts';

const CLIENTS = 16;
const MB = 1024 * 1024;

let upstream: UpstreamProcess;
let app: TestApp;

beforeAll(async () => {
  upstream = await startUpstreamProcess();
  app = await startApp({ env: { UPSTREAM_OPENAI_URL: upstream.url, EGRESS_ALLOW: '127.0.0.1' } });
});
afterAll(async () => {
  await app.stop();
  await upstream.stop();
});

/** Resident memory in MB, of buffers and of the heap. */
function residentMb(): number {
  const pages = Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[1]);
  return Math.round((pages * 4096) / MB);
}

/** Memory in MB of values that are in use, without what the process keeps for later. */
const usedMb = async () => Math.round((await measureRetainedBytes()) / MB);

async function measure(name: string, session: string, json: object): Promise<void> {
  const usedBefore = await usedMb();
  const before = residentMb();
  const body = Buffer.from(JSON.stringify(json));
  const sockets = Array.from({ length: CLIENTS }, () =>
    postWithoutReading(app, { session, path: '/v1/chat/completions', body }),
  );
  let highest = before;
  for (let sample = 0; sample < 150; sample += 1) {
    await delay(100);
    highest = Math.max(highest, residentMb());
  }
  const resident = `resident before ${before} MB, highest ${highest} MB, after 15 s ${residentMb()} MB`;
  console.log(`${name}: ${resident}; used before ${usedBefore} MB, after 15 s ${await usedMb()} MB`);
  for (const socket of sockets) socket.destroy();
  await delay(3_000);
}

it.each(['openai/whole', 'openai/events', 'openai/half', 'custom/whole', 'custom/events', 'custom/half'])(
  'measures the resident memory while 16 clients of one user read nothing of %s',
  async (model) => {
    const session = await app.signIn(await createUser({ tier: 'starter' }));
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    await addKey(app, session, { provider: 'custom', key: 'some-key', endpoint: upstream.url });
    await measure(model, session, { model, stream: !model.endsWith('whole'), messages: [] });
  },
  120_000,
);
