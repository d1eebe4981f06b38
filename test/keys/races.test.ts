import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { KeyView } from '../../src/keys/schema.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { openAiKey } from '../support/key.ts';
import { createDatabase } from '../support/database.ts';
import { createUser } from '../support/stack.ts';
import {
  createInstance,
  createPrincipal,
  randomKey,
  type Instance,
  type InstanceOptions,
} from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';
import type { RaceResult, RaceCommand } from './race-process.ts';

/** `RACE_RUNS=100 npm test -- test/keys/races` runs each race a hundred times. */
const RUNS = Number(process.env['RACE_RUNS'] ?? 1);
const RUN_LIMIT_MS = 120_000;

describe('concurrent changes of one user to two processes', () => {
  let apps: [TestApp, TestApp];

  beforeAll(async () => {
    const first = await startApp();
    apps = [first, await startApp({ shared: first })];
  });
  afterAll(async () => {
    await Promise.all(apps.map((app) => app.stop()));
  });

  it(
    'store ten of 50 keys and are refused with 409 forty times',
    async () => {
      for (let run = 1; run <= RUNS; run += 1) {
        const user = await createUser({ tier: 'starter' });
        // One after the other: Keycloak treats quick sign-ins of one user as an attack.
        const sessions: string[] = [];
        for (const app of apps) sessions.push(await app.signIn(user));
        const adds = Array.from({ length: 50 }, async (_, at) => {
          const [app, session] = [apps[at % 2], sessions[at % 2]];
          const json = { provider: 'openai', key: openAiKey(), label: `key ${at}` };
          const answer = await app?.call('/api/v1/byok/keys/add', {
            method: 'POST',
            session,
            json,
          } as object);
          return { status: answer?.status, body: (await answer?.json()) as { code?: string; key?: KeyView } };
        });
        const answers = await Promise.all(adds);
        const statuses = answers.map(({ status }) => status).sort();
        expect([run, statuses]).toEqual([
          run,
          [...Array<number>(10).fill(201), ...Array<number>(40).fill(409)],
        ]);
        const added = answers.flatMap(({ body }) => (body.key === undefined ? [] : [body.key.id]));
        for (const [at, app] of apps.entries()) {
          const listed = await app.call('/api/v1/byok/keys', { session: sessions[at] } as object);
          const ids = ((await listed.json()) as KeyView[]).map(({ id }) => id);
          expect(ids.sort()).toEqual(added.toSorted());
        }
      }
    },
    RUNS * RUN_LIMIT_MS,
  );

  it('with the same If-Match make one change of a key', async () => {
    const user = await createUser({ tier: 'starter' });
    const sessions: string[] = [];
    for (const app of apps) sessions.push(await app.signIn(user));
    const call = (at: number, path: string, init: object) => {
      const app = at % 2 === 0 ? apps[0] : apps[1];
      return app.call(path, { ...init, session: sessions[at % 2] ?? '' });
    };
    const json = { provider: 'openai', key: openAiKey() };
    const added = await call(0, '/api/v1/byok/keys/add', { method: 'POST', json });
    const { key } = (await added.json()) as { key: KeyView };
    const headers = { 'if-match': `"${key.version}"` };
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, at) =>
        call(at, `/api/v1/byok/keys/openai/${key.id}`, {
          ...{ method: 'PATCH', headers },
          json: { label: `label ${at}` },
        }),
      ),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([200, ...Array<number>(9).fill(412)]);
    const stored = (await (await call(1, '/api/v1/byok/keys', {})).json()) as KeyView[];
    const changed = (await answers.find(({ status }) => status === 200)?.json()) as KeyView;
    expect(stored).toEqual([changed]);
  });
});

describe('200 concurrent writes by two processes, one of which is killed', () => {
  let options: InstanceOptions;
  let observer: Instance;

  beforeAll(async () => {
    const { appUrl } = await createDatabase();
    options = {
      ...createInstanceOptions(appUrl),
      // All 200 wait for one lock, and none may fail because of the wait.
      lockTimeoutMs: RUN_LIMIT_MS,
    };
    observer = createInstance(options);
  });
  afterAll(() => observer.close());

  it(
    'lose no confirmed write and execute no refused write',
    async () => {
      const outcomes = { done: 0, refused: 0, unanswered: 0 };
      for (let run = 1; run <= RUNS; run += 1) {
        const race = await prepareRace(observer);
        const [one, two] = [startProcess(options), startProcess(options)];
        const killAfter = 5 + ((run * 17) % 80);
        for (const [at, command] of race.commands.entries()) (at % 2 === 0 ? one : two).send(command);
        await two.waitForAnswers(killAfter);
        await two.kill();
        await one.finish();
        const answers = new Map([...one.answers, ...two.answers].map((answer) => [answer.name, answer]));
        const keys = await observer.keys.listKeys(createPrincipal(race.userId));
        expect([run, findDifferences(race, answers, keys)]).toEqual([run, []]);
        for (const { name } of race.commands) {
          const answer = answers.get(name);
          outcomes[answer === undefined ? 'unanswered' : answer.code === null ? 'done' : 'refused'] += 1;
        }
      }
      // A race in which no write was interrupted, or none succeeded, would prove nothing.
      if (RUNS > 1) process.stdout.write(`200 writes, ${RUNS} runs: ${JSON.stringify(outcomes)}\n`);
      expect(outcomes.done).toBeGreaterThan(RUNS * 50);
      expect(outcomes.unanswered).toBeGreaterThan(0);
    },
    RUNS * RUN_LIMIT_MS,
  );
});

interface Race {
  userId: string;
  before: ReadonlyMap<string, KeyView>;
  commands: readonly RaceCommand[];
}

const ENDPOINT = 'https://llm.example.test/v1';

/** All providers of a deployment. */
const offered = PROVIDERS.filter((provider) => !provider.isLocalOnly);

function newKey({ key, requiresEndpoint }: Provider): { key: string; endpoint?: string } {
  // Cohere's keys have 40 characters and no prefix; the others accept any long text after their prefix.
  const value = key.prefix === '' ? randomKey('0000') : randomKey(key.prefix);
  return requiresEndpoint ? { key: value, endpoint: ENDPOINT } : { key: value };
}

/**
 * Stores five keys in each of ten pools. Each key is the target of one command, so that the results alone determine
 * its final state. 150 adds, more than fit into the pools, run concurrently.
 */
async function prepareRace(instance: Instance): Promise<Race> {
  const userId = randomUUID();
  const principal = createPrincipal(userId);
  const before = new Map<string, KeyView>();
  const commands: RaceCommand[] = [];
  for (const provider of offered) {
    for (let at = 0; at < 5; at += 1) {
      const input = { provider: provider.id, ...newKey(provider), label: 'old' };
      const { key } = await instance.keys.add(principal, input, 'r');
      before.set(key.id, key);
      const target = { name: `change of ${key.id}`, userId, provider: provider.id, keyId: key.id };
      if (at < 2) commands.push({ ...target, kind: 'delete' });
      else if (at < 4) commands.push({ ...target, kind: 'update', label: 'new' });
      else commands.push({ ...target, kind: 'replace', key: newKey(provider).key });
    }
  }
  for (let at = 0; commands.length < 200; at += 1) {
    const provider = offered[at % offered.length];
    if (provider === undefined) throw new Error('there is no provider');
    const add = { name: `add ${at}`, userId, provider: provider.id, label: `add ${at}`, ...newKey(provider) };
    // Spread out, so that adds, updates and deletes of one pool run concurrently.
    commands.splice((at * 7919) % commands.length, 0, { ...add, kind: 'add' });
  }
  return { userId, before, commands };
}

/** Lists differences between the final keys and the results. Commands without a result may have been executed. */
function findDifferences(
  race: Race,
  answers: ReadonlyMap<string, RaceResult>,
  keys: readonly KeyView[],
): string[] {
  const differences: string[] = [];
  const byId = new Map(keys.map((key) => [key.id, key]));
  for (const { id } of offered) {
    const count = keys.filter((key) => key.provider === id).length;
    if (count > 10) differences.push(`${id} holds ${count} keys`);
  }
  for (const command of race.commands) {
    const answer = answers.get(command.name);
    const isAdd = command.kind === 'add';
    const key = isAdd
      ? keys.find(({ label, provider }) => label === command.label && provider === command.provider)
      : byId.get(command.keyId);
    const isExecuted = isAdd ? key !== undefined : isChangeApplied(command, key, race);
    if (answer?.code === null && !isExecuted)
      differences.push(`${command.name} was confirmed but is not applied`);
    if (answer !== undefined && answer.code !== null) {
      if (isExecuted) differences.push(`${command.name} was refused (${answer.code}) but is applied`);
      // Only a full pool is a valid reason for a refusal here.
      if (answer.code !== 'pool_full') differences.push(`${command.name} was refused with ${answer.code}`);
    }
    if (isAdd && answer?.keyId && key?.id !== answer.keyId)
      differences.push(`${command.name} has another id`);
  }
  const labels = new Set(race.commands.flatMap((command) => (command.kind === 'add' ? [command.label] : [])));
  for (const { id, label } of keys) {
    if (!race.before.has(id) && !labels.has(label ?? '')) differences.push(`${id} was not requested`);
  }
  return differences;
}

function isChangeApplied(
  command: Exclude<RaceCommand, { kind: 'add' }>,
  key: KeyView | undefined,
  race: Race,
): boolean {
  if (command.kind === 'delete') return key === undefined;
  if (command.kind === 'update') return key?.label === command.label;
  return key !== undefined && key.key_preview !== race.before.get(command.keyId)?.key_preview;
}

interface RaceProcess {
  send(command: RaceCommand): void;
  readonly answers: readonly RaceResult[];
  /** Resolves when `count` results have arrived. */
  waitForAnswers(count: number): Promise<void>;
  /** Kills the process (SIGKILL). */
  kill(): Promise<void>;
  /** Resolves when all commands have results. @throws Error when the process failed. */
  finish(): Promise<void>;
}

function startProcess(options: InstanceOptions): RaceProcess {
  const file = fileURLToPath(new URL('race-process.ts', import.meta.url));
  const child: ChildProcess = spawn(process.execPath, [file], {
    env: { ...process.env, RACE_OPTIONS: JSON.stringify(options) },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new Error('the process has no pipes');
  stdin.on('error', () => undefined);
  const exit = once(child, 'exit') as Promise<[number | null, string | null]>;
  const answers: RaceResult[] = [];
  let received = Promise.withResolvers<undefined>();
  const lines = createInterface({ input: stdout });
  lines.on('line', (line) => {
    answers.push(JSON.parse(line) as RaceResult);
    received.resolve(undefined);
    received = Promise.withResolvers<undefined>();
  });
  return {
    send: (command) => void stdin.write(`${JSON.stringify(command)}\n`),
    answers,
    async waitForAnswers(count) {
      while (answers.length < count) await received.promise;
    },
    async kill() {
      const closed = once(lines, 'close');
      child.kill('SIGKILL');
      await Promise.all([exit, closed]);
    },
    async finish() {
      const closed = once(lines, 'close');
      stdin.end();
      const [[code]] = await Promise.all([exit, closed]);
      if (code !== 0) throw new Error(`a racing process ended with ${String(code)}`);
    },
  };
}
