import { describe, expect } from '@jest/globals';
import { setTimeout as delay } from 'node:timers/promises';
import { measureRetainedBytes } from '../../support/retained-bytes.ts';
import type { ContractHarness } from './harness.ts';

const MIB = 2 ** 20;
const SENT_BYTES = 100 * MIB;
const MAX_GROWTH_BYTES = 32 * MIB;
/** Memory measurements while the output is not read: enough time for all output without back pressure to arrive. */
const MEASUREMENTS = 8;

export function describeLimits(harness: ContractHarness): void {
  describeOutput(harness);
  describeResources(harness);
}

function describeOutput({ test, run, start }: ContractHarness): void {
  describe('output', () => {
    test('output that is not read costs no memory and is not lost', async () => {
      const started = start({ program: { command: `head -c ${SENT_BYTES} /dev/zero` } });
      await started.readUntil('\0');
      const before = await measureRetainedBytes();
      let peak = before;
      for (let measurement = 0; measurement < MEASUREMENTS; measurement += 1) {
        await delay(100);
        peak = Math.max(peak, await measureRetainedBytes());
      }
      expect((peak - before) / MIB).toBeLessThan(MAX_GROWTH_BYTES / MIB);
      expect(await countRest(started.events)).toBeGreaterThan(SENT_BYTES - 8 * MIB);
    });

    test('output beyond the limit stops the run, and no byte beyond it is emitted', async () => {
      const limits = { maxOutputBytes: 100_000 };
      const { stdout, stderr, exit } = await run({ program: { command: 'yes | tee /dev/stderr' }, limits });
      expect(stdout.length + stderr.length).toBe(100_000);
      expect(exit).toMatchObject({ cause: 'output_limit', cleanup: 'verified' });
    });

    test('output of exactly the limit is allowed', async () => {
      const limits = { maxOutputBytes: 100_000 };
      const { stdout, exit } = await run({
        program: { command: 'head -c 100000 /dev/zero' },
        limits,
      });
      expect(stdout.length).toBe(100_000);
      expect(exit).toMatchObject({ cause: 'exited', code: 0 });
    });
  });
}

function describeResources({ test, run, runner, subject }: ContractHarness): void {
  const { enforces, languages } = subject.capabilities;
  const none = { timeoutMs: 1000, maxOutputBytes: 1000, memoryBytes: null, cpus: null, pids: null };
  const one = {
    memoryBytes: { ...none, memoryBytes: 64 * MIB, network: null },
    cpus: { ...none, cpus: 1, network: null },
    pids: { ...none, pids: 50, network: null },
    none: { ...none, network: 'none' },
    any: { ...none, network: 'any' },
  } as const;

  describe('limits', () => {
    for (const [name, limits] of Object.entries(one)) {
      const holds = enforces[name as keyof typeof one];
      const limit = name === 'none' || name === 'any' ? 'network' : name;
      test(`${limit === 'network' ? `network ${name}` : limit} is ${holds ? 'not ' : ''}listed as an unenforceable limit`, async () => {
        expect(runner().unenforceableLimits(subject.target().config, limits)).toEqual(holds ? [] : [limit]);
        await Promise.resolve();
      });
    }

    if (enforces.memoryBytes)
      test('a program over its memory limit is killed with the cause out_of_memory', async () => {
        const command = "x=$(head -c 400000000 /dev/zero | tr '\\0' a); echo ${#x}";
        const { stdout, exit } = await run({
          program: { command },
          limits: { memoryBytes: 64 * MIB },
        });
        expect(stdout.toString()).toBe('');
        expect(exit).toMatchObject({ cause: 'out_of_memory', cleanup: 'verified' });
      });

    if (enforces.pids)
      test('a program cannot start more processes than its limit', async () => {
        const command = 'i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; echo all';
        const { stdout, exit } = await run({ program: { command }, limits: { pids: 50 } });
        expect(stdout.toString()).not.toContain('all');
        expect(exit).toMatchObject({ cleanup: 'verified' });
      });

    if (enforces.cpus && languages.includes('python'))
      test('a program gets no more processor time than its limit', async () => {
        const code = [
          'import time',
          'begin = time.monotonic()',
          'while time.monotonic() - begin < 2: pass',
          'print(time.process_time() / (time.monotonic() - begin))',
        ].join('\n');
        const program = { language: 'python', code } as const;
        const { stdout } = await run({ program, limits: { cpus: 0.25 } });
        expect(Number(stdout.toString())).toBeGreaterThan(0);
        expect(Number(stdout.toString())).toBeLessThan(0.5);
      });

    if (enforces.none)
      test('without a network a program sees only a loopback interface', async () => {
        const command = "sed '1,2d; s/:.*//; s/ //g' /proc/net/dev; sed 1d /proc/net/route";
        const { stdout } = await run({ program: { command }, limits: { network: 'none' } });
        expect(stdout.toString()).toBe('lo\n');
      });
  });
}

async function countRest(events: AsyncGenerator<{ type: string; data?: Uint8Array }, void>): Promise<number> {
  let bytes = 0;
  for await (const event of events) {
    if (event.type === 'exit') expect(event).toMatchObject({ cause: 'exited', code: 0, cleanup: 'verified' });
    bytes += event.data?.length ?? 0;
  }
  return bytes;
}
