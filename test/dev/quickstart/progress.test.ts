import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { plainProgress, terminalProgress } from '../../../src/dev/quickstart/progress.ts';

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
    const done = plainProgress(
      (line) => lines.push(line),
      new AbortController().signal,
    )([
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
    const fails = plainProgress(
      (line) => lines.push(line),
      new AbortController().signal,
    )([
      { title: 'A', run: () => Promise.reject(new Error('no')) },
      { title: 'B', run: () => Promise.resolve() },
    ]);
    await expect(fails).rejects.toThrow('no');
    expect(lines).toEqual(expect.arrayContaining(['A: failed (0 s)', 'B: done (0 s)']));
  });

  it('calls what a Ctrl-C ended stopped, and what another step’s failure ended too', async () => {
    const lines: string[] = [];
    const print = (line: string) => lines.push(line);
    const stop = new AbortController();
    const run = () => {
      stop.abort();
      return Promise.reject(new Error('its child was killed'));
    };
    await expect(plainProgress(print, stop.signal)([{ title: 'Keycloak', run }])).rejects.toThrow('killed');
    const givenUp = { title: 'Postgres', run: () => Promise.reject(AbortSignal.abort().reason as Error) };
    await expect(plainProgress(print, new AbortController().signal)([givenUp])).rejects.toThrow();
    expect(lines).toEqual(['Keycloak: stopped (0 s)', 'Postgres: stopped (0 s)']);
  });
});

describe('progress on a terminal', () => {
  it('shows a step that a Ctrl-C ended as stopped, not as failed, and passes its end on', async () => {
    jest.useRealTimers();
    let shown = '';
    const write = jest.spyOn(process.stdout, 'write').mockImplementation((text) => {
      shown += String(text);
      return true;
    });
    const stop = new AbortController();
    const run = () => {
      stop.abort();
      return Promise.reject(new Error('its child was killed'));
    };
    try {
      await expect(terminalProgress(stop.signal)([{ title: 'Keycloak', run }])).rejects.toThrow('killed');
    } finally {
      write.mockRestore();
    }
    expect(shown).toContain('Keycloak: stopped');
    expect(shown).not.toMatch(/FAILED|its child was killed/);
  });
});
