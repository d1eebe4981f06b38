import { setTimeout as delay } from 'node:timers/promises';
import { describe, it } from '@jest/globals';
import type { TestApp } from '../test/support/app.ts';
import { createServerClient, type ServerClient } from '../test/support/servers.ts';
import type { LoadAttack, LoadProbe } from './load/attack.ts';
import { startAppProcess } from './load/app-process.ts';
import { startAttack, type Load } from './load/attack-process.ts';
import { busyLocalRuns } from './load/busy-local-runs.ts';
import { costlySshKeys } from './load/costly-ssh-keys.ts';
import { manyJsonMembers } from './load/many-json-members.ts';
import { unfinishedBodies } from './load/unfinished-bodies.ts';
import { unreadAnswers } from './load/unread-answers.ts';
import { printRatios, printTimes } from './table.ts';

/** Each is a file in `load/`. */
const ATTACKS: readonly LoadAttack[] = [
  busyLocalRuns,
  costlySshKeys,
  manyJsonMembers,
  unfinishedBodies,
  unreadAnswers,
];
const MEASURE_MS = 1_000 * Number(process.env['BENCH_SECONDS'] ?? 15);
const WARM_UP_CALLS = 20;

/**
 * Calls one after the other, as a user's browser does; where a rate limit allows few, they are spread over the time.
 * @returns the time of each call in ms.
 */
async function measure({ call, maxCalls = Infinity }: LoadProbe): Promise<number[]> {
  const times: number[] = [];
  const endMs = performance.now() + MEASURE_MS;
  while (times.length === 0 || (performance.now() < endMs && times.length < maxCalls)) {
    const startedAtMs = performance.now();
    await call();
    times.push(performance.now() - startedAtMs);
    const pauseMs = startedAtMs + MEASURE_MS / maxCalls - performance.now();
    if (pauseMs > 0) await delay(pauseMs);
  }
  return times;
}

function createMeProbe(app: TestApp, { session }: ServerClient): LoadProbe {
  return {
    name: 'GET /api/v1/me',
    // A user may send 1,200 requests a minute.
    maxCalls: 500,
    async call() {
      const response = await app.call('/api/v1/me', { session });
      await response.text();
      if (response.status !== 200) throw new Error(`the other user's call was answered ${response.status}`);
    },
  };
}

async function measureUnder(name: string, load: Load, probe: LoadProbe): Promise<void> {
  for (let round = 0; round < Math.min(WARM_UP_CALLS, (probe.maxCalls ?? Infinity) / 2); round += 1)
    await probe.call();
  const without = await measure(probe);
  const end = await startAttack(load);
  let during: number[];
  let result: string;
  try {
    during = await measure(probe);
  } finally {
    result = await end();
  }
  printTimes(`${name}: ${probe.name} of another user`, { without, during });
  printRatios(during, without);
  process.stdout.write(`the attacker: ${result}\n`);
}

/** The app, the attacker and the upstream are processes of their own; this process is the client of the other user. */
describe('another user under load', () => {
  it.each(ATTACKS)('$name', async ({ name, env = {}, prepare }) => {
    await using app = await startAppProcess({ LOG_LEVEL: 'warn', ...env });
    const [attacker, other] = [await createServerClient(app), await createServerClient(app)];
    const { load, probe, close } = await prepare(app, attacker, other);
    try {
      await measureUnder(name, load, probe ?? createMeProbe(app, other));
    } finally {
      await close?.();
    }
  });
});
