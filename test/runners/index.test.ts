import { afterAll, describe, expect, it } from '@jest/globals';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { createDialer } from '../../src/lib/net/dialer.ts';
import { createLog } from '../../src/lib/log.ts';
import { createRunners } from '../../src/runners/index.ts';
import { SERVER_TYPES } from '../../src/runners/runner.ts';

const FOLDER = path.resolve(import.meta.dirname, '../../src/runners');
/** Files that are not runners. */
const SHARED = [
  'index.ts',
  'interpreters.ts',
  'marker-stream.ts',
  'runner.ts',
  'setup.ts',
  'test-stages.ts',
  'shell.ts',
  'supervise.ts',
];

describe('the list of runners', () => {
  const dialer = createDialer({
    ...{ mode: 'deployed', allow: [], deny: [], forbidden: () => [] },
    connectTimeoutMs: 1_000,
  });
  const log = createLog('silent');
  afterAll(() => dialer.close());

  it('contains every server type once, in the order in which users see them', () => {
    const runners = createRunners({ dialer, log });
    expect([...runners.keys()]).toEqual([...SERVER_TYPES]);
    for (const [type, runner] of runners) expect(runner.type).toBe(type);
  });

  it('has all runners of the folder, and no other file lies there', () => {
    const names = readdirSync(FOLDER).filter((name) => !SHARED.includes(name));
    expect(names.sort()).toEqual([...SERVER_TYPES].sort());
    for (const type of SERVER_TYPES) expect(existsSync(path.join(FOLDER, type, 'index.ts'))).toBe(true);
  });

  it('is supervised: a run that was cancelled before its start is not passed to a runner', async () => {
    for (const runner of createRunners({ dialer, log }).values()) {
      // A runner would read the target and the job.
      const events = runner.run(
        {} as never,
        {} as never,
        { timeoutMs: 1_000 } as never,
        AbortSignal.abort('cancelled'),
      );
      expect((await events.next()).value).toMatchObject({ type: 'exit', cause: 'cancelled' });
      expect((await events.next()).done).toBe(true);
    }
  });

  it('does not run local jobs unless the operator has enabled it', async () => {
    const local = createRunners({ dialer, log }).get('local');
    const target = {
      serverId: 'local',
      owner: 'user:1' as const,
      version: 1,
      config: { setup: null },
      hostKey: null,
    };
    const result = await local?.test(
      { ...target, workspacePath: null, jumpServers: new Map() },
      new AbortController().signal,
    );
    expect(result?.status).toBe('forbidden');
    expect(result?.stages[0]).toMatchObject({ name: 'policy', status: 'failed' });
  });
});
