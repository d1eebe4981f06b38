import { jest } from '@jest/globals';

/**
 * Sets both clocks of this process (monotonic and wall clock) ahead until it is disposed; timers are not affected. So a
 * test can check what happens to old data without waiting.
 */
export function setClocksAhead(ms: number): Disposable {
  const spies = [Date, performance].map((clock: { now(): number }) => {
    const now = clock.now.bind(clock);
    return jest.spyOn(clock, 'now').mockImplementation(() => now() + ms);
  });
  return {
    [Symbol.dispose]() {
      for (const spy of spies) spy.mockRestore();
    },
  };
}
