import { describe, expect } from '@jest/globals';
import { TEST_STAGES } from '../../../src/runners/runner.ts';
import { cleanUpResultOf, exitedWith, type ContractHarness } from './harness.ts';

export function describeServer(harness: ContractHarness): void {
  describeSharing(harness);
  describeTest(harness);
  describeConfig(harness);
  if (harness.subject.outage !== undefined) describeOutage(harness, harness.subject.outage);
}

function describeSharing({ test, run, start, runner, subject }: ContractHarness): void {
  const concurrentRuns = subject.concurrentRuns ?? 20;

  describe('concurrent runs on one server', () => {
    test(`${concurrentRuns} concurrent runs do not affect each other`, async () => {
      const runs = Array.from({ length: concurrentRuns }, (_, index) =>
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

    test('an active run continues when its server is released', async () => {
      const started = start({ program: { command: 'echo ready; sleep 1; echo done' } });
      await started.readUntil('ready');
      await runner().release(subject.target().serverId);
      const { stdout, exit } = await started.readToEnd();
      expect(stdout.toString()).toBe('ready\ndone\n');
      expect(exit).toEqual(exitedWith(0));
    });
  });
}

function describeTest({ test, runner, subject }: ContractHarness): void {
  describe('the test of a server', () => {
    test('a working server passes all stages in order and is online', async () => {
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
      const passed = result.stages.filter(({ name }) => ['echo', 'kill', 'cleanup'].includes(name));
      expect(passed.map(({ status }) => status)).toEqual(['ok', 'ok', 'ok']);
    });

    test('a missing workspace fails its stage, and later stages are skipped', async () => {
      const target = { ...subject.target(), workspacePath: `/tmp/none'; echo $(echo injected)` };
      const { status, stages } = await runner().test(target, new AbortController().signal);
      expect(status).toBe('error');
      expect(stages.find(({ name }) => name === 'workspace')).toMatchObject({ status: 'failed' });
      expect(stages.find(({ name }) => name === 'echo')).toMatchObject({ status: 'skipped' });
    });

    test('an aborted test rejects with the reason', async () => {
      const reason = new Error('gone');
      await expect(runner().test(subject.target(), AbortSignal.abort(reason))).rejects.toBe(reason);
    });
  });
}

function describeConfig({ test, runner, subject }: ContractHarness): void {
  describe('the configuration', () => {
    test('parsing it again changes nothing, and undeclared members are refused', async () => {
      const config = subject.target().config as object;
      expect(runner().config.parse(config)).toEqual(config);
      expect(runner().config.safeParse({ ...config, undeclared: true }).success).toBe(false);
      await Promise.resolve();
    });

    test('the destination that its secrets are bound to contains no secret', async () => {
      const { config, hostKey } = subject.target();
      const destination = JSON.stringify(runner().destination(config, hostKey));
      for (const field of runner().secretFields) {
        const secret: unknown = (config as Record<string, unknown>)[field];
        if (typeof secret === 'string')
          expect(destination).not.toContain(JSON.stringify(secret).slice(1, -1));
      }
      await Promise.resolve();
    });
  });
}

function describeOutage(
  { test, start, runner, subject }: ContractHarness,
  outage: NonNullable<Outage>,
): void {
  const ofOrphans = cleanUpResultOf(subject);
  describe('a server outage', () => {
    test('loses the run, and its processes are cleaned up when the server is back', async () => {
      const target = (await outage.target?.()) ?? subject.target();
      const command = 'trap "" HUP TERM; echo ready; while :; do sleep 1; done';
      const started = start({ program: { command }, target });
      await started.readUntil('ready');
      await outage.begin();
      try {
        expect((await started.readToEnd()).exit).toMatchObject({ cause: 'lost', code: null });
      } finally {
        await outage.end();
      }
      expect(await runner().cleanUp(target, started.runId)).toBe(ofOrphans);
    });
  });
}

type Outage = ContractHarness['subject']['outage'];
