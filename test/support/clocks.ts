import { jest } from '@jest/globals';

/**
 * Sets both clocks of this process ahead, the steady and the wall clock, until it is disposed of; timers go on as
 * they were. So a test sees what becomes of something that is old, without growing old itself.
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
