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

  it('runs steps in parallel and throws the error of a failed one', async () => {
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

  it('shows a step as stopped after Ctrl-C or after the failure of another step', async () => {
    const lines: string[] = [];
    const print = (line: string) => lines.push(line);
    const stop = new AbortController();
    const run = () => {
      stop.abort();
      return Promise.reject(new Error('its child was killed'));
    };
    await expect(plainProgress(print, stop.signal)([{ title: 'Keycloak', run }])).rejects.toThrow('killed');
    const cancelled = { title: 'Postgres', run: () => Promise.reject(AbortSignal.abort().reason as Error) };
    await expect(plainProgress(print, new AbortController().signal)([cancelled])).rejects.toThrow();
    expect(lines).toEqual(['Keycloak: stopped (0 s)', 'Postgres: stopped (0 s)']);
  });
});

describe('progress on a terminal', () => {
  it('shows a step as stopped after Ctrl-C, not as failed, and throws its error', async () => {
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

  it('leaves the message of a failed step to the command, which prints it once', async () => {
    jest.useRealTimers();
    let shown = '';
    const write = jest.spyOn(process.stdout, 'write').mockImplementation((text) => {
      shown += String(text);
      return true;
    });
    const { isTTY } = process.stdout;
    process.stdout.isTTY = true;
    const run = () => Promise.reject(new Error('the port is in use'));
    try {
      const steps = [{ title: 'Keycloak', run }];
      await expect(terminalProgress(new AbortController().signal)(steps)).rejects.toThrow('in use');
    } finally {
      process.stdout.isTTY = isTTY;
      write.mockRestore();
    }
    expect(shown).toContain('Keycloak');
    expect(shown).not.toContain('the port is in use');
  });
});
