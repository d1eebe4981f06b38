import { describe, expect } from '@jest/globals';
import { exitedWith, type ContractHarness } from './harness.ts';

export function describeExits({ test, run, subject }: ContractHarness): void {
  const { reportsSignals } = subject.capabilities;

  describe('how a program ends', () => {
    for (const code of [0, 1, 2, 127, 255]) {
      test(`exit code ${code} is reported unchanged`, async () => {
        const { exit } = await run({ program: { command: `exit ${code}` } });
        expect(exit).toEqual(exitedWith(code));
      });
    }

    test('exit code 137 is reported unchanged, and not as out of memory', async () => {
      const { exit } = await run({ program: { command: 'exit 137' } });
      if (reportsSignals) expect(exit).toEqual(exitedWith(137));
      else expect(exit).toMatchObject({ code: 137, cleanup: 'verified' });
      expect(['exited', 'signal']).toContain(exit.cause);
    });

    for (const [signal, number] of [
      ['SIGKILL', 9],
      ['SIGTERM', 15],
      ['SIGSEGV', 11],
    ] as const) {
      test(`a program killed by ${signal} has no exit code, or 128 plus the signal number`, async () => {
        const { exit } = await run({ program: { command: `kill -${number} $$` } });
        if (reportsSignals) expect(exit).toMatchObject({ cause: 'signal', signal, cleanup: 'verified' });
        else expect(exit).toMatchObject({ code: 128 + number, cleanup: 'verified' });
        expect(exit.code).not.toBe(0);
      });
    }

    test('a background child that keeps the output open does not delay the exit', async () => {
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

    test('all output arrives before the exit event', async () => {
      const { stdout, exit } = await run({ program: { command: 'head -c 5000000 /dev/zero; exit 7' } });
      expect(stdout.length).toBe(5_000_000);
      expect(exit).toEqual(exitedWith(7));
    });
  });
}
