/**
 * The suite that every runner passes against real servers. To use it, in `test/runners/<type>/<type>.test.ts`:
 *
 *     describeOn('ssh', 'the SSH runner', () => {
 *       describeRunnerContract({
 *         createRunner: () => createSshRunner({ connections }), // unsupervised: the suite supervises it
 *         target: () => ({ serverId, owner, version: 1, config, hostKey, workspacePath: null, jumpServers }),
 *         listLeaks: () => findLeaks(),  // names of containers, pods, temporary folders; [] when clean
 *         capabilities: { languages: ['python', 'javascript', 'bash'], enforces: { ... }, ... },
 *         outage: { begin, end },        // makes the server unreachable during a run, and reachable again
 *       });
 *     });
 *
 * A capability describes what a type of server cannot do. It must not hide a fault. The suite finds processes itself:
 * it marks the environment of every job, and after every test no marked process may be left on this machine. The
 * programs are written for a POSIX shell, so that an image with busybox is enough.
 */
import { afterAll, afterEach, beforeAll, expect } from '@jest/globals';
import type { Job, Language, Limits, Runner, TargetServer } from '../../src/runners/runner.ts';
import { createContractHarness } from './contract/harness.ts';
import { describeExits } from './contract/exits.ts';
import { describeLimits } from './contract/limits.ts';
import { describePrograms } from './contract/programs.ts';
import { describeServer } from './contract/server.ts';
import { describeSetup } from './contract/setup.ts';
import { describeStopping } from './contract/stopping.ts';

export interface Capabilities {
  /** The interpreters on the server of `target()`. */
  languages: readonly Language[];
  /** The limits that are enforced; `unenforceableLimits` must list the others. */
  enforces: { memoryBytes: boolean; cpus: boolean; pids: boolean; none: boolean; any: boolean };
  /** False if the server reports a signal only as an exit code (128 + n). */
  reportsSignals: boolean;
  /** False if a run is verified on its own connection only, so that `cleanUp` always reports `unverified`. */
  verifiesOrphans?: false;
}

export interface ContractSubject {
  /** Creates a runner, as each instance of the product has one. The suite closes it. */
  createRunner: () => Runner | Promise<Runner>;
  /** A working server. Called for each run. */
  target: () => TargetServer;
  capabilities: Capabilities;
  /** A server or an environment without the interpreter of a language. */
  missingInterpreter: { target?: () => TargetServer; language: Language; env?: Job['env'] };
  /** Names of what runs left on the server, without containers that are kept on purpose. */
  listLeaks: () => Promise<readonly string[]> | readonly string[];
  /** Absent if the server is this machine. */
  outage?: {
    /** A separate server, if `target()` must stay reachable for other tests. */
    target?: () => TargetServer | Promise<TargetServer>;
    begin: () => Promise<void> | void;
    end: () => Promise<void> | void;
  };
  /** Limits for every job, if the server does not support the usual ones. */
  limits?: Partial<Limits>;
  /** How many runs the server can run at once; by default 20. */
  concurrentRuns?: number;
  /** Timeout of each test. */
  testTimeoutMs?: number;
}

/** Adds the tests of the suite to the current `describe`. */
export function describeRunnerContract(subject: ContractSubject): void {
  const harness = createContractHarness(subject);
  beforeAll(harness.open, subject.testTimeoutMs);
  afterAll(harness.close);
  afterEach(async () => {
    expect(await harness.listLeaks()).toEqual([]);
  });

  describePrograms(harness);
  describeSetup(harness);
  describeExits(harness);
  describeStopping(harness);
  describeLimits(harness);
  describeServer(harness);
}
