import { beforeAll, it } from '@jest/globals';

/**
 * Declares tests that mostly wait. They run at the same time, before the first test of the block, and each reports its own
 * result. Cleanups of single tests (`afterEach`) run when all of them have ended.
 * @param timeoutMs time limit of all together.
 */
export function itTogether(
  tests: readonly (readonly [rule: string, body: () => Promise<void>])[],
  timeoutMs: number,
): void {
  let results: readonly PromiseSettledResult<void>[] = [];
  beforeAll(async () => {
    results = await Promise.allSettled(tests.map(([, body]) => body()));
  }, timeoutMs);
  for (const [index, [rule]] of tests.entries())
    it(rule, () => {
      const result = results[index];
      if (result?.status !== 'fulfilled') throw result?.reason ?? new Error('the test did not end');
    });
}
