/**
 * The one suite that every runner passes against real servers. To plug one in, in `test/runners/<type>.test.ts`:
 *
 *     describeOn('ssh', 'the SSH runner', () => {
 *       describeRunnerContract({
 *         createRunner: () => createSshRunner({ dialer, log }), // bare: the suite supervises it
 *         target: () => ({ serverId, owner, version: 1, config, hostKey, workspacePath: null, references }),
 *         look: () => leftovers(),       // names of containers, pods, temporary folders: [] when clean
 *         capabilities: { languages: ['python', 'javascript', 'bash'], enforces: { ... }, ... },
 *         vanish: { go, back },          // takes the server away in the middle of a run, and brings it back
 *       });
 *     });
 *
 * A capability says what a kind of server cannot do by nature. It never hides a fault. Processes are found by
 * the suite itself: it marks the environment of every job, and after every test nothing marked may be left on
 * this machine. Programs are written for a POSIX shell, so that an image with busybox is enough.
 */
import { afterAll, afterEach, beforeAll, expect } from '@jest/globals';
import type { Job, Language, Limits, Runner, TargetServer } from '../../src/runners/runner.ts';
import { createContractHarness } from './contract/harness.ts';
import { describeExits } from './contract/exits.ts';
import { describeLimits } from './contract/limits.ts';
import { describePrograms } from './contract/programs.ts';
import { describeServer } from './contract/server.ts';
import { describeStopping } from './contract/stopping.ts';

export interface Capabilities {
  /** What the server of `target()` has. */
  languages: readonly Language[];
  /** The limits that hold there; the others are listed by `unenforceable`. */
  enforces: { memoryBytes: boolean; cpus: boolean; pids: boolean; none: boolean; any: boolean };
  /** False where the server tells a signal as an exit code (128 + n) and nothing else. */
  reportsSignals: boolean;
}

export interface ContractSubject {
  /** A new runner, as another instance of the product would have it. Closed by the suite. */
  createRunner: () => Runner | Promise<Runner>;
  /** A server that works; asked for anew by each run. */
  target: () => TargetServer;
  capabilities: Capabilities;
  /** A server, or a job, that has no interpreter for a language. */
  missingInterpreter: { target?: () => TargetServer; language: Language; env?: Job['env'] };
  /** What runs have left on the server, by name. What is kept warm on purpose does not count. */
  listLeaks: () => Promise<readonly string[]> | readonly string[];
  /** Absent where the server is this very machine. */
  outage?: {
    /** A server of its own where `target()` is needed by others. */
    target?: () => TargetServer | Promise<TargetServer>;
    begin: () => Promise<void> | void;
    end: () => Promise<void> | void;
  };
  /** Where the server's own limits are in the way of the usual ones: lifted or lowered for every job. */
  limits?: Partial<Limits>;
  /** How many runs it can hold at once; 20 unless the server has too little room. */
  concurrentRuns?: number;
  /** The most that one test may take. */
  testTimeoutMs?: number;
}

/** Adds the suite's tests to the `describe` that is open. */
export function describeRunnerContract(subject: ContractSubject): void {
  const bench = createContractHarness(subject);
  beforeAll(bench.open, subject.testTimeoutMs);
  afterAll(bench.close);
  afterEach(async () => {
    expect(await bench.listLeaks()).toEqual([]);
  });

  describePrograms(bench);
  describeExits(bench);
  describeStopping(bench);
  describeLimits(bench);
  describeServer(bench);
}
