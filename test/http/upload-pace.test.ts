import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { watchUploadPace } from '../../src/http/upload-pace.ts';

const KB = 1024;

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

interface Step {
  seconds: number;
  /** Sent at the end of each of these seconds. */
  bytesPerSecond: number;
}

/** Sends in steps. @returns after how many seconds the upload was ended; undefined when it was not. */
function runUpload(steps: Step[]): number | undefined {
  let seconds = 0;
  let endedAfter: number | undefined;
  using pace = watchUploadPace(() => (endedAfter ??= seconds));
  for (const step of steps) {
    for (let count = 0; count < step.seconds; count += 1) {
      seconds += 1;
      jest.advanceTimersByTime(1_000);
      if (step.bytesPerSecond > 0) pace.received(step.bytesPerSecond);
      if (endedAfter !== undefined) return endedAfter;
    }
  }
  return endedAfter;
}

describe('the pace of an upload', () => {
  it.each<[string, Step[]]>([
    ['2 MB over 75 s', [{ seconds: 75, bytesPerSecond: (2048 * KB) / 75 }]],
    ['32 MB over an hour', [{ seconds: 3_600, bytesPerSecond: (32 * 1024 * KB) / 3_600 }]],
    ['8 KB/s without an end', [{ seconds: 600, bytesPerSecond: 8 * KB }]],
    [
      'a first byte after 9 s',
      [
        { seconds: 8, bytesPerSecond: 0 },
        { seconds: 100, bytesPerSecond: 32 * KB },
      ],
    ],
    [
      '19 s without a byte after a fast start',
      [
        { seconds: 2, bytesPerSecond: 1024 * KB },
        { seconds: 18, bytesPerSecond: 0 },
        { seconds: 10, bytesPerSecond: 8 * KB },
      ],
    ],
  ])('allows %s', (_name, steps) => {
    expect(runUpload(steps)).toBeUndefined();
  });

  it.each<[string, Step[], number]>([
    ['nothing at all', [{ seconds: 60, bytesPerSecond: 0 }], 10],
    ['one byte a second', [{ seconds: 60, bytesPerSecond: 1 }], 11],
    ['4 KB/s', [{ seconds: 60, bytesPerSecond: 4 * KB }], 19],
    [
      '20 s without a byte after a fast start',
      [
        { seconds: 2, bytesPerSecond: 4096 * KB },
        { seconds: 60, bytesPerSecond: 0 },
      ],
      22,
    ],
  ])('ends %s', (_name, steps, endedAfter) => {
    expect(runUpload(steps)).toBe(endedAfter);
  });

  it('has no end after its disposal', () => {
    const onTooSlow = jest.fn();
    watchUploadPace(onTooSlow)[Symbol.dispose]();
    jest.advanceTimersByTime(600_000);
    expect(onTooSlow).not.toHaveBeenCalled();
  });

  it('is compared by what arrived last, so that a fast start does not hide a stop', () => {
    using stopped = watchUploadPace(() => undefined);
    stopped.received(32 * 1024 * KB);
    jest.advanceTimersByTime(60_000);
    using slow = watchUploadPace(() => undefined);
    using fast = watchUploadPace(() => undefined);
    for (let count = 0; count < 5; count += 1) {
      jest.advanceTimersByTime(1_000);
      slow.received(16 * KB);
      fast.received(1024 * KB);
    }
    using begun = watchUploadPace(() => undefined);
    jest.advanceTimersByTime(10);
    begun.received(64 * KB);
    const speeds = [stopped, slow, fast, begun].map((pace) => pace.speed());
    expect(speeds).toEqual([...speeds].sort((a, b) => a - b));
  });
});
