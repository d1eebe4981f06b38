import { describe, expect } from '@jest/globals';
import { setTimeout as rest } from 'node:timers/promises';
import { measureRetainedBytes } from '../../support/retained-bytes.ts';
import type { ContractHarness } from './harness.ts';

const MIB = 2 ** 20;
const SENT_BYTES = 100 * MIB;
const MAX_GROWTH_BYTES = 32 * MIB;
/** How often memory is looked at while nobody reads: long enough for everything to arrive that is not held back. */
const MEASUREMENTS = 8;

export function describeLimits(bench: ContractHarness): void {
  describeOutput(bench);
  describeResources(bench);
}

function describeOutput({ test, run, start }: ContractHarness): void {
  describe('output', () => {
    test('a reader that does not read costs no memory, and loses nothing', async () => {
      const underway = start({ program: { command: `head -c ${SENT_BYTES} /dev/zero` } });
      await underway.readUntil('\0');
      const before = await measureRetainedBytes();
      let most = before;
      for (let look = 0; look < MEASUREMENTS; look += 1) {
        await rest(100);
        most = Math.max(most, await measureRetainedBytes());
      }
      expect((most - before) / MIB).toBeLessThan(MAX_GROWTH_BYTES / MIB);
      expect(await countRest(underway.events)).toBeGreaterThan(SENT_BYTES - 8 * MIB);
    });

    test('output beyond the limit ends the run, and no byte beyond it is passed on', async () => {
      const limits = { maxOutputBytes: 100_000 };
      const { stdout, stderr, exit } = await run({ program: { command: 'yes | tee /dev/stderr' }, limits });
      expect(stdout.length + stderr.length).toBe(100_000);
      expect(exit).toMatchObject({ cause: 'output_limit', cleanup: 'verified' });
    });

    test('output up to the limit is no fault', async () => {
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
      test(`${limit === 'network' ? `network ${name}` : limit} is ${holds ? 'not ' : ''}listed as a limit that does not hold`, async () => {
        expect(runner().unenforceableLimits(subject.target().config, limits)).toEqual(holds ? [] : [limit]);
        await Promise.resolve();
      });
    }

    if (enforces.memoryBytes)
      test('a program that takes more memory than it may is ended, and the cause is told', async () => {
        const command = "x=$(head -c 400000000 /dev/zero | tr '\\0' a); echo ${#x}";
        const { stdout, exit } = await run({
          program: { command },
          limits: { memoryBytes: 64 * MIB },
        });
        expect(stdout.toString()).toBe('');
        expect(exit).toMatchObject({ cause: 'out_of_memory', cleanup: 'verified' });
      });

    if (enforces.pids)
      test('a program cannot start more processes than it may', async () => {
        const command = 'i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; echo all';
        const { stdout, exit } = await run({ program: { command }, limits: { pids: 50 } });
        expect(stdout.toString()).not.toContain('all');
        expect(exit).toMatchObject({ cleanup: 'verified' });
      });

    if (enforces.cpus && languages.includes('python'))
      test('a program gets no more of the processor than it may', async () => {
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
      test('without a network a program sees no interface but its own loopback', async () => {
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
