import { describe, expect } from '@jest/globals';
import { exitedWith, type ContractHarness } from './harness.ts';

export function describeExits({ test, run, subject }: ContractHarness): void {
  const { reportsSignals: tellsSignals } = subject.capabilities;

  describe('how a program ends', () => {
    for (const code of [0, 1, 2, 127, 255]) {
      test(`exit code ${code} is told as it is`, async () => {
        const { exit } = await run({ program: { command: `exit ${code}` } });
        expect(exit).toEqual(exitedWith(code));
      });
    }

    test('exit code 137 is told as it is, and is not taken for a lack of memory', async () => {
      const { exit } = await run({ program: { command: 'exit 137' } });
      if (tellsSignals) expect(exit).toEqual(exitedWith(137));
      else expect(exit).toMatchObject({ code: 137, cleanup: 'verified' });
      expect(['exited', 'signal']).toContain(exit.cause);
    });

    for (const [signal, number] of [
      ['SIGKILL', 9],
      ['SIGTERM', 15],
      ['SIGSEGV', 11],
    ] as const) {
      test(`a program that ${signal} ended has no exit code of its own`, async () => {
        const { exit } = await run({ program: { command: `kill -${number} $$` } });
        if (tellsSignals) expect(exit).toMatchObject({ cause: 'signal', signal, cleanup: 'verified' });
        else expect(exit).toMatchObject({ code: 128 + number, cleanup: 'verified' });
        expect(exit.code).not.toBe(0);
      });
    }

    test('a child in the background that holds the output open does not hold the end up', async () => {
      const { stdout, exit } = await run({ program: { command: 'sleep 1000 & echo done' } });
      expect(stdout.toString()).toBe('done\n');
      expect(exit).toEqual(exitedWith(0));
    });

    test('a child that left its session does not outlive the program', async () => {
      const child = 'echo child $$; trap "" HUP TERM; while :; do sleep 1; done';
      const command = `(setsid sh -c '${child}' > log 2>&1 &) ; until grep -q child log; do :; done; cat log`;
      const { stdout, exit } = await run({ program: { command } });
      expect(stdout.toString()).toMatch(/^child \d+\n$/);
      expect(exit).toEqual(exitedWith(0));
    });

    test('all output from before the end has come when the end is told', async () => {
      const { stdout, exit } = await run({ program: { command: 'head -c 5000000 /dev/zero; exit 7' } });
      expect(stdout.length).toBe(5_000_000);
      expect(exit).toEqual(exitedWith(7));
    });
  });
}
