import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, it } from '@jest/globals';
import { startApp, type TestApp } from '../test/support/app.ts';
import { addKey, openAiKey } from '../test/support/key.ts';
import { measureRetainedBytes } from '../test/support/retained-bytes.ts';
import { createUser } from '../test/support/stack.ts';

const CLIENTS = 16;
const MB = 1024 * 1024;

let upstream: { process: ChildProcess; url: string };
let app: TestApp;

/** A process of its own, so that its memory is not measured. */
async function startUpstreamProcess(): Promise<typeof upstream> {
  const script = fileURLToPath(new URL('./large-answers-upstream.ts', import.meta.url));
  const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [url] = (await once(child.stdout.setEncoding('utf8'), 'data')) as [string];
  return { process: child, url: url.trim() };
}

beforeAll(async () => {
  upstream = await startUpstreamProcess();
  app = await startApp({ env: { UPSTREAM_OPENAI_URL: upstream.url, EGRESS_ALLOW: '127.0.0.1' } });
});
afterAll(async () => {
  await app.stop();
  upstream.process.kill();
});

/** Resident memory in MB, of buffers and of the heap. */
function residentMb(): number {
  const pages = Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[1]);
  return Math.round((pages * 4096) / MB);
}

/** A chat request whose response is not read. */
function chatUnread(session: string, json: object): Socket {
  const { hostname, port } = new URL(app.url);
  const body = JSON.stringify(json);
  const socket = connect(Number(port), hostname)
    .on('error', () => undefined)
    .pause();
  const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:${port}\r\nCookie: session=${session}\r\n`;
  socket.write(
    `${head}Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  return socket;
}

/** Memory in MB of values that are in use, without what the process keeps for later. */
const usedMb = async () => Math.round((await measureRetainedBytes()) / MB);

async function measure(name: string, session: string, json: object): Promise<void> {
  const usedBefore = await usedMb();
  const before = residentMb();
  const sockets = Array.from({ length: CLIENTS }, () => chatUnread(session, json));
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
