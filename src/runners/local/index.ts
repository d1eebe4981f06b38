import { existsSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import type { Log } from '../../lib/log.ts';
import { setupLine } from '../../lib/setup-line.ts';
import { createControlGroups, type ControlGroups } from './control-groups.ts';
import { findWorkingFolder } from './bwrap-arguments.ts';
import { killSandboxes } from './processes.ts';
import { createNotInstalledMessage, runLocalJob } from './run.ts';
import type { LocalCeilings } from './sandbox.ts';
import { findEscapes } from './self-test.ts';
import { LOCAL_EXECUTION_DISABLED, testLocalServer } from './staged-test.ts';
import type { Limits, OptionalLimit, Runner } from '../runner.ts';
import { createSetup, runWithSetup } from '../setup.ts';

const config = z.strictObject({ setup: setupLine });
type LocalConfig = z.infer<typeof config>;

/** Fixed paths: the PATH of the environment must not decide which program isolates the jobs. */
const BWRAP_PATHS = ['/usr/bin/bwrap', '/usr/local/bin/bwrap'];

export interface LocalRunnerOptions {
  /** The operator's `LOCAL_EXECUTION`. */
  enabled: boolean;
  /** Folders and files of the product that no program may see: its folder, `DATA_DIR`, `.env`, files of secrets. */
  hiddenPaths: readonly string[];
  /** Of one run; a run that requests more is refused. */
  ceilings: LocalCeilings;
  log: Log;
  /** Path of bubblewrap; by default the system's. */
  bwrap?: string;
}

/**
 * Runs jobs on this machine, each in its own bubblewrap sandbox, under its own user id and in a control group. If one
 * of these is not available, no job runs. Before the first job a self-test tries to escape from a sandbox; it is
 * repeated until it passes, and no job runs before.
 */
export function createLocalRunner(options: LocalRunnerOptions): Runner<LocalConfig> {
  const { enabled, ceilings, log } = options;
  const hiddenPaths = options.hiddenPaths.map((name) => path.resolve(name));
  const bwrap = options.bwrap ?? BWRAP_PATHS.find((file) => existsSync(file));
  const architecture = process.arch === 'x64' || process.arch === 'arm64' ? process.arch : undefined;
  let controlGroups: ControlGroups | undefined;
  /** Created at first use, so that an unused runner creates no groups. Retried if the required limits are missing. */
  const getControlGroups = () => (controlGroups ??= createControlGroups());
  let selfTest: Promise<string | undefined> | undefined;

  const deps =
    process.platform === 'linux' && bwrap !== undefined && existsSync(bwrap) && architecture !== undefined
      ? { bwrap, getControlGroups, hiddenPaths, ceilings, architecture, log }
      : undefined;

  /** A passed self-test is remembered until the process ends. A failed one is repeated. */
  async function findUnavailableReason(): Promise<string | undefined> {
    if (!enabled) return LOCAL_EXECUTION_DISABLED;
    if (deps === undefined) return BWRAP_MISSING;
    if (process.getuid?.() !== 0) return ROOT_MISSING;
    const missing = findMissingControllers(getControlGroups().enforceableLimits, ceilings);
    if (missing.length > 0) {
      controlGroups = undefined;
      return createCgroupsMissing(missing);
    }
    selfTest ??= findEscapes(deps).then(toUnavailableReason);
    const reason = await selfTest.catch((error: unknown) => {
      log.error({ err: error }, 'the self-test of the sandbox failed');
      return SELF_TEST_FAILED;
    });
    if (reason !== undefined) selfTest = undefined;
    return reason;
  }

  const run: Runner<LocalConfig>['run'] = ({ config, workspacePath }, job, limits, signal) =>
    runWithSetup(config.setup, createNotInstalledMessage(job), (setup) =>
      runLocalJob(job, workspacePath, limits, signal, {
        deps: deps && { ...deps, setup },
        findUnavailableReason,
      }),
    );

  return {
    type: 'local',
    config,
    secretFields: ['setup'],
    destination: () => ({ type: 'local' }),
    jumpServerIds: () => [],
    needsHostKey: false,
    maxLimits: ceilings,
    unenforceableLimits: (_config, limits) => findUnenforceable(limits, getControlGroups().enforceableLimits),
    test: (target, signal) =>
      testLocalServer(
        {
          enabled,
          findUnavailableReason,
          hasFolder: findWorkingFolder(target.workspacePath) !== undefined,
          hasSetup: createSetup(target.config.setup) !== undefined,
          run: (job, limits, stopSignal) => run(target, job, limits, stopSignal),
        },
        signal,
      ),
    run,
    async cleanUp(_target, runId) {
      const ended = await killSandboxes(runId);
      const removed = await getControlGroups().removeByRunId(runId);
      return ended && removed ? 'verified' : 'unverified';
    },
    release: () => Promise.resolve(),
    releaseOwner: () => Promise.resolve(),
    listOwners: () => [],
    close: () => Promise.resolve(),
  };
}

const BWRAP_MISSING =
  'Local execution needs Linux with bubblewrap 0.8 or later. Ask the operator to install it, or use another server type.';
const ROOT_MISSING =
  'Local execution needs root, because each run gets its own user id. Start the app as root, or use another server type.';
const SELF_TEST_FAILED =
  'The sandbox could not be tested, so no program may run in it. See the log of the app.';

/** Every run needs a limit of memory and processes: without it one program could exhaust the machine. */
function findMissingControllers(enforceable: ReadonlySet<string>, { cpus }: LocalCeilings): string[] {
  const controllers = { memoryBytes: 'memory', pids: 'pids', ...(cpus === null ? {} : { cpus: 'cpu' }) };
  const isMissing = Object.keys(controllers).some((limit) => !enforceable.has(limit));
  return isMissing ? Object.values(controllers) : [];
}

function createCgroupsMissing(controllers: readonly string[]): string {
  return `Local execution needs control groups (cgroups) with the controllers ${new Intl.ListFormat('en').format(controllers)}, to limit what a run uses. The app cannot create them here.`;
}

function toUnavailableReason(escapes: readonly string[]): string | undefined {
  if (escapes.length === 0) return undefined;
  return `No program may run on this machine, because the sandbox does not isolate it: a program could ${escapes.join(', ')}.`;
}

function findUnenforceable(limits: Limits, enforceable: ReadonlySet<string>): OptionalLimit[] {
  const requested = (['memoryBytes', 'cpus', 'pids'] as const).filter((limit) => limits[limit] !== null);
  const missing: OptionalLimit[] = requested.filter((limit) => !enforceable.has(limit));
  // A sandbox has no network.
  return limits.network === 'any' ? [...missing, 'network'] : missing;
}
