import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { plainProgress } from '../../src/cli/quickstart/progress.ts';

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

describe('progress in plain lines', () => {
  it('shows a long step every 15 s with the time it has taken', async () => {
    const lines: string[] = [];
    let finish = (): void => undefined;
    const done = plainProgress((line) => lines.push(line))([
      {
        title: 'Keycloak',
        run: (note) => {
          note('fetching');
          return new Promise((resolve) => {
            finish = resolve;
          });
        },
      },
    ]);
    await jest.advanceTimersByTimeAsync(75_000);
    finish();
    await done;
    await jest.advanceTimersByTimeAsync(60_000);
    expect(lines).toEqual([
      'Keycloak: fetching (0 s)',
      'Keycloak: still fetching (15 s)',
      'Keycloak: still fetching (30 s)',
      'Keycloak: still fetching (45 s)',
      'Keycloak: still fetching (1 min 0 s)',
      'Keycloak: still fetching (1 min 15 s)',
      'Keycloak: done (1 min 15 s)',
    ]);
  });

  it('runs steps side by side and passes the failure of one on', async () => {
    const lines: string[] = [];
    const fails = plainProgress((line) => lines.push(line))([
      { title: 'A', run: () => Promise.reject(new Error('no')) },
      { title: 'B', run: () => Promise.resolve() },
    ]);
    await expect(fails).rejects.toThrow('no');
    expect(lines).toEqual(expect.arrayContaining(['A: failed (0 s)', 'B: done (0 s)']));
  });
});
