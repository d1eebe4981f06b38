import { describe, expect } from '@jest/globals';
import { TEST_STAGES } from '../../../src/runners/runner.ts';
import { exitedWith, type ContractHarness } from './harness.ts';

export function describeServer(bench: ContractHarness): void {
  describeSharing(bench);
  describeTest(bench);
  describeConfig(bench);
  if (bench.subject.outage !== undefined) describeOutage(bench, bench.subject.outage);
}

function describeSharing({ test, run, start, runner, subject }: ContractHarness): void {
  const atOnce = subject.concurrentRuns ?? 20;

  describe('one server for many runs', () => {
    test(`${atOnce} runs at once do not touch each other`, async () => {
      const runs = Array.from({ length: atOnce }, (_, index) =>
        run({
          program: { command: 'cat file; cat; printf %s "$VALUE"; exit $VALUE' },
          files: [{ path: 'file', content: Buffer.from(`file ${index}, `) }],
          stdin: Buffer.from(`input ${index}, `),
          env: { VALUE: String(index) },
        }),
      );
      const outcomes = await Promise.all(runs);
      for (const [index, { stdout, exit }] of outcomes.entries()) {
        expect(stdout.toString()).toBe(`file ${index}, input ${index}, ${index}`);
        expect(exit).toEqual(exitedWith(index));
      }
    });

    test('a run under way goes on when what is kept for its server is let go of', async () => {
      const underway = start({ program: { command: 'echo ready; sleep 1; echo done' } });
      await underway.readUntil('ready');
      await runner().forget(subject.target().serverId);
      const { stdout, exit } = await underway.readToEnd();
      expect(stdout.toString()).toBe('ready\ndone\n');
      expect(exit).toEqual(exitedWith(0));
    });
  });
}

function describeTest({ test, runner, subject }: ContractHarness): void {
  describe('the test of a server', () => {
    test('a server that works is online after all stages, in their order', async () => {
      const result = await runner().test(subject.target(), new AbortController().signal);
      expect(result).toMatchObject({ status: 'online', hostKey: null });
      const names = result.stages.map(({ name }) => name);
      expect(names).toEqual(TEST_STAGES.filter((name) => names.includes(name)));
      expect(names).toEqual(expect.arrayContaining(['policy', 'permission', 'workspace', 'echo', 'kill']));
      expect(names.at(-1)).toBe('cleanup');
      for (const { name, status, message } of result.stages) {
        expect([name, status]).not.toEqual([name, 'failed']);
        expect(message).toMatch(/\S/);
      }
      const proven = result.stages.filter(({ name }) => ['echo', 'kill', 'cleanup'].includes(name));
      expect(proven.map(({ status }) => status)).toEqual(['ok', 'ok', 'ok']);
    });

    test('a workspace that is missing fails its stage, and the rest is passed over', async () => {
      const target = { ...subject.target(), workspacePath: `/tmp/none'; echo $(echo injected)` };
      const { status, stages } = await runner().test(target, new AbortController().signal);
      expect(status).toBe('error');
      expect(stages.find(({ name }) => name === 'workspace')).toMatchObject({ status: 'failed' });
      expect(stages.find(({ name }) => name === 'echo')).toMatchObject({ status: 'skipped' });
    });

    test('a test that is no longer wanted ends with the reason', async () => {
      const reason = new Error('gone');
      await expect(runner().test(subject.target(), AbortSignal.abort(reason))).rejects.toBe(reason);
    });
  });
}

function describeConfig({ test, runner, subject }: ContractHarness): void {
  describe('the configuration', () => {
    test('it is read back as it is, and an undeclared member is refused', async () => {
      const config = subject.target().config as object;
      expect(runner().config.parse(config)).toEqual(config);
      expect(runner().config.safeParse({ ...config, undeclared: true }).success).toBe(false);
      await Promise.resolve();
    });

    test('what its secrets are sealed with holds none of them', async () => {
      const { config, hostKey } = subject.target();
      const sealed = JSON.stringify(runner().destination(config, hostKey));
      for (const field of runner().secretFields) {
        const secret: unknown = (config as Record<string, unknown>)[field];
        if (typeof secret === 'string') expect(sealed).not.toContain(JSON.stringify(secret).slice(1, -1));
      }
      await Promise.resolve();
    });
  });
}

function describeOutage(
  { test, start, runner, subject }: ContractHarness,
  vanish: NonNullable<Outage>,
): void {
  describe('a server that goes away', () => {
    test('the run is lost, and what is left of it is ended when the server is back', async () => {
      const target = (await vanish.target?.()) ?? subject.target();
      const command = 'trap "" HUP TERM; echo ready; while :; do sleep 1; done';
      const underway = start({ program: { command }, target });
      await underway.readUntil('ready');
      await vanish.begin();
      try {
        expect((await underway.readToEnd()).exit).toMatchObject({ cause: 'lost', code: null });
      } finally {
        await vanish.end();
      }
      expect(await runner().cleanUp(target, underway.runId)).toBe('verified');
    });
  });
}

type Outage = ContractHarness['subject']['outage'];
