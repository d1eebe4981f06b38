import { afterEach, expect, it } from '@jest/globals';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describeOn } from '../../support/hosts.ts';
import { listControlGroupFolders } from '../../support/sandbox-leaks.ts';
import { listLeaks } from './leaks.ts';
import { localRunner, NO_CEILINGS, runLocally } from './running.ts';

const MIB = 2 ** 20;
/** Prints the share of one CPU that it got in a second. */
const BUSY = `import time\nbegin = time.monotonic()\nwhile time.monotonic() - begin < 1: pass\nprint(time.process_time())`;

/** The content of a file in the control groups of a run; undefined in groups that have no such file. */
function readGroupFile(runId: string, name: string): string | undefined {
  const file = listControlGroupFolders()
    .map((folder) => path.join(folder, `ops-center-run-${process.pid}-${runId}`, name))
    .find((each) => existsSync(each));
  return file === undefined ? undefined : readFileSync(file, 'utf8').trim();
}

describeOn('local', 'the share of the machine of a local run', () => {
  afterEach(() => expect(listLeaks()).toEqual([]));

  it('is smaller than that of the app, by its priority and by the weight of its control group', async () => {
    const weights: (string | undefined)[] = [];
    const { text } = await runLocally(
      localRunner(),
      { runId: 'weighed', program: { command: 'sh -c "nice; nice"; read -r line; true' } },
      () => void weights.push(readGroupFile('weighed', 'cpu.shares'), readGroupFile('weighed', 'cpu.weight')),
    );
    expect(text).toBe('19\n19\n');
    // Of 1024 in version 1 of control groups, of 100 in version 2.
    expect(weights.filter((weight) => weight !== undefined)).toContain(
      existsSync('/sys/fs/cgroup/cpu/cpu.shares') ? '51' : '5',
    );
  });

  it('is bounded by what the operator allows, also without a requested limit', async () => {
    const runner = localRunner({ ceilings: { memoryBytes: 64 * MIB, cpus: 0.25, pids: 12 } });
    const fork = 'n=0; while [ $n -lt 40 ]; do sleep 5 & n=$((n + 1)); done; wait';
    const allocate = `print("begin", flush=True); data = bytearray(${256 * MIB})`;
    const memory = await runLocally(runner, { program: { language: 'python', code: allocate } });
    expect(memory.exit.cause).toBe('out_of_memory');
    const cpu = await runLocally(runner, { program: { language: 'python', code: BUSY } });
    expect(Number(cpu.text)).toBeLessThan(0.5);
    const processes = await runLocally(runner, { program: { command: `${fork} 2>&1` } });
    expect(processes.text).toMatch(/[Cc]annot fork/);
  });

  it('is bounded by the requested limit where that is lower', async () => {
    const runner = localRunner({ ceilings: { ...NO_CEILINGS, memoryBytes: 512 * MIB } });
    const allocate = { language: 'python', code: `data = bytearray(${256 * MIB})` } as const;
    expect((await runLocally(runner, { program: allocate })).exit.cause).toBe('exited');
    const requested = { memoryBytes: 64 * MIB };
    expect((await runLocally(runner, { program: allocate }, undefined, requested)).exit.cause).toBe(
      'out_of_memory',
    );
  });
});
