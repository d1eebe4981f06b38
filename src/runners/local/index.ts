import { existsSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import type { Log } from '../../lib/log.ts';
import { createControlGroups, type ControlGroups } from './control-groups.ts';
import { findWorkingFolder } from './bwrap-arguments.ts';
import { killSandboxes } from './processes.ts';
import { runLocalJob } from './run.ts';
import { findEscapes } from './self-test.ts';
import { LOCAL_EXECUTION_DISABLED, testLocalServer } from './staged-test.ts';
import type { Limits, OptionalLimit, Runner } from '../runner.ts';

const config = z.strictObject({});
type LocalConfig = z.infer<typeof config>;

/** Where systems put it. No search path of the environment decides what the wall is made of. */
const BWRAP_PATHS = ['/usr/bin/bwrap', '/usr/local/bin/bwrap'];

export interface LocalRunnerOptions {
  /** The operator's `LOCAL_EXECUTION`. */
  enabled: boolean;
  /** Folders and files of the product that no program may see: its own folder, `DATA_DIR`, `.env`, files of secrets. */
  hiddenPaths: readonly string[];
  log: Log;
  /** Another bubblewrap than the system's. */
  bwrap?: string;
}

/**
 * Runs jobs on this very machine, each in a sandbox of its own, made by bubblewrap, under a user of its own and in a
 * control group; nothing runs where one of these cannot be had. Before the first, and until one has passed, a probe
 * tries to get out; nothing runs where it can.
 */
export function createLocalRunner(options: LocalRunnerOptions): Runner<LocalConfig> {
  const { enabled, log } = options;
  const hiddenPaths = options.hiddenPaths.map((name) => path.resolve(name));
  const bwrap = options.bwrap ?? BWRAP_PATHS.find((file) => existsSync(file));
  const architecture = process.arch === 'x64' || process.arch === 'arm64' ? process.arch : undefined;
  let controlGroups: ControlGroups | undefined;
  /** Found out when first asked: where nothing is run, nothing is tried. What does not do is tried again. */
  const getControlGroups = () => (controlGroups ??= createControlGroups());
  let selfTest: Promise<string | undefined> | undefined;

  const deps =
    process.platform === 'linux' && bwrap !== undefined && existsSync(bwrap) && architecture !== undefined
      ? { bwrap, getControlGroups, hiddenPaths, architecture, log }
      : undefined;

  /** A test that was passed holds for the life of the process; one that failed is tried again. */
  async function findUnavailableReason(): Promise<string | undefined> {
    if (!enabled) return LOCAL_EXECUTION_DISABLED;
    if (deps === undefined) return BWRAP_MISSING;
    if (process.getuid?.() !== 0) return ROOT_MISSING;
    if (!hasRequiredLimits(getControlGroups().enforceableLimits)) {
      controlGroups = undefined;
      return CGROUPS_MISSING;
    }
    selfTest ??= findEscapes(deps).then(toUnavailableReason);
    const refusal = await selfTest.catch((error: unknown) => {
      log.error({ err: error }, 'the self-test of the sandbox failed');
      return SELF_TEST_FAILED;
    });
    if (refusal !== undefined) selfTest = undefined;
    return refusal;
  }

  return {
    type: 'local',
    config,
    secretFields: [],
    destination: () => ({ type: 'local' }),
    jumpServerIds: () => [],
    needsHostKey: false,
    unenforceableLimits: (_config, limits) => findUnenforceable(limits, getControlGroups().enforceableLimits),
    test: ({ workspacePath }, signal) =>
      testLocalServer(
        {
          enabled,
          findUnavailableReason: findUnavailableReason,
          hasFolder: findWorkingFolder(workspacePath) !== undefined,
          run: (job, limits, stop) =>
            runLocalJob(job, workspacePath, limits, stop, { deps, findUnavailableReason }),
        },
        signal,
      ),
    run: ({ workspacePath }, job, limits, signal) =>
      runLocalJob(job, workspacePath, limits, signal, { deps, findUnavailableReason }),
    async cleanUp(_target, runId) {
      const ended = await killSandboxes(runId);
      const removed = await getControlGroups().removeByRunId(runId);
      return ended && removed ? 'verified' : 'unverified';
    },
    forget: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
}

const BWRAP_MISSING =
  'Programs run on this machine only in a sandbox of bubblewrap (0.8 or later, on Linux): its operator can install it.';
const ROOT_MISSING =
  'Programs run on this machine only under a user of their own, and only root can give them one: the app runs as another user.';
const CGROUPS_MISSING =
  'Programs run on this machine only where their memory and processes are bounded: the app cannot make control groups (cgroups) with the controllers memory and pids.';
const SELF_TEST_FAILED =
  'The sandbox could not be tested, so no program may run in it. The log of the server says why.';

/** Without these two, one program could take the whole machine, whether or not its job asks for limits. */
function hasRequiredLimits(enforceable: ReadonlySet<string>): boolean {
  return enforceable.has('memoryBytes') && enforceable.has('pids');
}

function toUnavailableReason(escapes: readonly string[]): string | undefined {
  if (escapes.length === 0) return undefined;
  return `No program may run on this machine: one could ${escapes.join(', ')}.`;
}

function findUnenforceable(limits: Limits, enforceable: ReadonlySet<string>): OptionalLimit[] {
  const requested = (['memoryBytes', 'cpus', 'pids'] as const).filter((limit) => limits[limit] !== null);
  const missing: OptionalLimit[] = requested.filter((limit) => !enforceable.has(limit));
  // There is none in a sandbox.
  return limits.network === 'any' ? [...missing, 'network'] : missing;
}
