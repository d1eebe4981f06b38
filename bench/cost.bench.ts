import { afterAll, beforeAll, it } from '@jest/globals';
import type { TestApp } from '../test/support/app.ts';
import { addKey, openAiKey } from '../test/support/key.ts';
import { createUser } from '../test/support/stack.ts';
import { bearer, createToken } from '../test/support/token.ts';
import { startNginx, startPortkey, type Gateway } from './cost/gateways.ts';
import { readCpuUs, sendLoad, startUpstream, type Program } from './cost/program.ts';
import { startAppProcess } from './load/app-process.ts';
import { printCosts, type Cost } from './table.ts';

const CONNECTIONS = 16;
const DURATION_MS = 1_000 * Number(process.env['BENCH_SECONDS'] ?? 15);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3);
const WARM_UP_MS = 3_000;
const body = JSON.stringify({ model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] });

let upstream: Program & { url: string };
let app: TestApp & { pid: number };
let session: string;
let token: string;

beforeAll(async () => {
  upstream = await startUpstream();
  app = await startAppProcess({ UPSTREAM_OPENAI_URL: `${upstream.url}/v1` }, { recordsLog: false });
  session = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, session, { provider: 'openai', key: openAiKey() });
  ({ token } = await createToken(app, session));
});
afterAll(async () => {
  await app.stop();
  await upstream.stop();
});

async function measure(gateway: Gateway, durationMs: number): Promise<Cost> {
  const beforeUs = readCpuUs(gateway.pid);
  const headers = { 'content-type': 'application/json', ...gateway.headers };
  const { url } = gateway;
  const sent = await sendLoad({ url, headers, body, connections: CONNECTIONS, durationMs });
  return { ...sent, cpuUs: (readCpuUs(gateway.pid) - beforeUs) / sent.requests };
}

function listOurs(): Gateway[] {
  const own = { url: `${app.url}/v1/chat/completions`, pid: app.pid, stop: () => Promise.resolve() };
  return [
    { ...own, name: 'Ops Center, by session', headers: { cookie: `session=${session}` } },
    { ...own, name: 'Ops Center, by token', headers: bearer(token) },
  ];
}

async function startGateways(): Promise<Gateway[]> {
  const others = [await startNginx(upstream.url), await startPortkey(upstream.url)];
  for (const reason of others.filter((one) => typeof one === 'string'))
    process.stdout.write(`A row is left out: ${reason}.\n`);
  const direct = {
    name: 'direct',
    url: `${upstream.url}/v1/chat/completions`,
    headers: { authorization: 'Bearer sk-direct' },
    pid: upstream.pid,
    stop: () => Promise.resolve(),
  };
  return [direct, ...others.filter((one) => typeof one !== 'string'), ...listOurs()];
}

/** In turn, so that all rows suffer alike from other work of the machine. Direct requests cost the upstream's own time. */
it(`measures the processor time of a small chat, ${CONNECTIONS} at once`, async () => {
  const gateways = await startGateways();
  try {
    for (const gateway of gateways) await measure(gateway, WARM_UP_MS);
    const costs = new Map<string, Cost[]>(gateways.map(({ name }) => [name, []]));
    for (let round = 0; round < ROUNDS; round += 1)
      for (const gateway of gateways) costs.get(gateway.name)?.push(await measure(gateway, DURATION_MS));
    printCosts(`a small chat, ${CONNECTIONS} at once, ${ROUNDS} rounds of ${DURATION_MS} ms`, costs);
  } finally {
    for (const gateway of gateways) await gateway.stop();
  }
});
