import type { ZodType } from 'zod';
import type { Owner } from '../lib/owner.ts';
import type { HostKey } from '../lib/ssh/host-key.ts';

/**
 * Server types that run code. Each has a folder of the same name beside this file and an entry in `index.ts`.
 */
export const SERVER_TYPES = ['ssh', 'docker', 'kubernetes', 'local'] as const;
export type ServerType = (typeof SERVER_TYPES)[number];

export const LANGUAGES = ['python', 'javascript', 'bash'] as const;
export type Language = (typeof LANGUAGES)[number];

/** Snapshot of a server with decrypted secrets. It exists for one test or one run and is never logged. */
export interface TargetServer<Config = unknown> {
  /** The server's id. Random for a configuration that is not stored. */
  serverId: string;
  /** Owner of the server. Nothing is shared between owners. */
  owner: Owner;
  /** Increases with every change of the server. State cached for an older version must not be used. */
  version: number;
  /** Parsed by the runner's schema, with secrets in plaintext. */
  config: Config;
  /** The confirmed host key. Null before confirmation and for server types without host keys. */
  hostKey: HostKey | null;
  /** Working folder of jobs that name none. Null is the account's or the image's default. */
  workspacePath: string | null;
  /**
   * The owner's servers on the way to this one, by id: jump servers, or the SSH server of a Docker engine.
   */
  jumpServers: ReadonlyMap<string, TargetServer>;
}

/**
 * The versions of a server and then of the servers on the way to it. They only increase. If they are equal, the
 * target is the same host with the same settings.
 */
export function listServerVersions({ version, jumpServers }: TargetServer): readonly number[] {
  // At most one jump server each, so that the chains of two targets of a server correspond.
  return [version, ...[...jumpServers.values()].flatMap(listServerVersions)];
}

export type Program = { language: Language; code: string } | { command: string };

export interface JobFile {
  /** Relative to the job's folder, without `..`. Missing folders are created. */
  path: string;
  content: Uint8Array;
}

/** The program to run. All members are data: none is inserted into shell text unquoted. */
export interface Job {
  runId: string;
  program: Program;
  /** Null is empty input: the program reads end of file at once. */
  stdin: Uint8Array | null;
  /** Written to the working folder before the program starts, and removed afterwards. */
  files: readonly JobFile[];
  /** Names `[A-Za-z_][A-Za-z0-9_]*`. */
  env: Readonly<Record<string, string>>;
  /** Absolute. Null is the server's workspace or, without one, a new folder that is removed afterwards. */
  workdir: string | null;
}

/** Null means not requested: the runner's default applies. */
export interface Limits {
  timeoutMs: number;
  /** Both streams together. */
  maxOutputBytes: number;
  memoryBytes: number | null;
  cpus: number | null;
  pids: number | null;
  network: 'none' | 'any' | null;
}

/** Limits that some runners cannot enforce. Every runner enforces the time and output limits. */
export type OptionalLimit = keyof typeof LIMIT_NAMES;

/** Wire names of the limits that not every runner enforces. */
export const LIMIT_NAMES = {
  memoryBytes: 'memory_bytes',
  cpus: 'cpus',
  pids: 'pids',
  network: 'network',
} as const;

/** Why a run was stopped. It is the abort reason of the run's signal. */
export type StopCause = 'timeout' | 'cancelled' | 'output_limit';

export type ExitCause =
  | StopCause
  /** The program ended by itself with `code`. */
  | 'exited'
  /** A signal that the runner did not send ended the program. */
  | 'signal'
  | 'out_of_memory'
  /** The program started, and how it ended is unknown. */
  | 'lost'
  /** The program could not start, or the server failed during the run. Not a failure of the program. */
  | 'infrastructure';

export type OutputStream = 'stdout' | 'stderr';

export interface ExitEvent {
  type: 'exit';
  cause: ExitCause;
  /** The program's exit code, if known. It is 0 only if the server reported 0. */
  code: number | null;
  /** E.g. `SIGKILL`. */
  signal: string | null;
  /** `verified`: checked after the run, and nothing of it is left on the server. */
  cleanup: 'verified' | 'unverified';
  /**
   * What to do, for users. Null if cause and code suffice. Holds no secret, and no text from the server but the quoted
   * line of a program on the user's own SSH server.
   */
  message: string | null;
}

export type RunEvent =
  | { type: 'phase'; phase: 'preparing' | 'started' }
  | { type: 'output'; stream: OutputStream; data: Uint8Array }
  | ExitEvent;

/**
 * In the order in which they run. `host_key` is for SSH only, `tls` for the other types, `setup` for servers that have
 * one.
 */
export const TEST_STAGES = [
  'policy',
  'tcp',
  'host_key',
  'tls',
  'authentication',
  'permission',
  'workspace',
  'setup',
  'echo',
  'kill',
  'cleanup',
] as const;
export type TestStageName = (typeof TEST_STAGES)[number];

/** Result of a test. `untested` is the state before the first test. */
export const SERVER_TEST_STATUSES = [
  'untested',
  'online',
  'offline',
  'auth_failed',
  'host_key_unknown',
  'host_key_changed',
  'forbidden',
  'error',
] as const;
export type ServerTestStatus = (typeof SERVER_TEST_STATUSES)[number];

export interface TestStage {
  name: TestStageName;
  /** `skipped`: an earlier stage failed, or there was nothing to do. */
  status: 'ok' | 'failed' | 'skipped';
  durationMs: number;
  /** The finding and, on failure, what to do. Holds no secret; text from the server as in the message of an exit. */
  message: string;
}

export interface ServerTestResult {
  status: Exclude<ServerTestStatus, 'untested'>;
  message: string;
  stages: TestStage[];
  /**
   * The key that the server presented, if it is unknown or has changed. `hop` is the id of the jump server
   * that presented it.
   */
  hostKey: (HostKey & { hop: string | null }) | null;
}

/**
 * Runs jobs on one type of server. One suite checks the guarantees of every runner
 * (test/runners/contract.ts): exactly one `exit`, as the last event; an aborted signal kills the whole
 * process tree, checks that it is gone, and then reports; a slow reader pauses the program and uses no
 * memory; a limit is enforced or listed as unenforceable; without an exit status the cause is `lost`, never
 * code 0; a failure of the server is never reported as a failure of the program.
 */
export interface Runner<Config = unknown> {
  readonly type: ServerType;
  /**
   * Schema of `connection_config`. Undeclared members are refused. Parse user input with `parseAsync` and
   * store the output, which `parse` accepts again.
   * @throws ZodError with messages for users.
   */
  readonly config: ZodType<Config>;
  /**
   * Corrects members that users sent, where their meaning is certain, before they are merged and parsed: e.g. a port that
   * was typed behind the host.
   * @returns the members, and a message for users for each that contradicts another.
   */
  correctInput?(sent: Readonly<Record<string, unknown>>): {
    sent: Readonly<Record<string, unknown>>;
    problems: Readonly<Record<string, string>>;
  };
  /**
   * Rules for new configurations that stored ones may break, as a message for users by member. The use of such a server
   * fails with the same message.
   */
  findInputProblems?(config: Config): Readonly<Record<string, string>>;
  /** Members of the configuration that are stored encrypted and never returned to users. */
  readonly secretFields: readonly string[];
  /**
   * Everything that decides where secrets are sent. It is encrypted with the secrets and compared at every
   * use.
   */
  destination(config: Config, hostKey: HostKey | null): unknown;
  /** Ids of the owner's SSH servers on the way to this server. */
  jumpServerIds(config: Config): readonly string[];
  /** True if a host key must be confirmed before anything runs. */
  readonly needsHostKey: boolean;
  /** What the operator allows a run to request; null or absent is unlimited. A run that requests more is refused. */
  readonly maxLimits?: Readonly<Partial<Record<'memoryBytes' | 'cpus' | 'pids', number | null>>>;
  /** The requested limits that cannot be enforced there. Such a run is refused. */
  unenforceableLimits(config: Config, limits: Limits): readonly OptionalLimit[];
  /**
   * Tests a server stage by stage, within a minute.
   * @throws the reason of `signal`, or AppError `busy` (503), which says nothing about the server.
   */
  test(target: TargetServer<Config>, signal: AbortSignal): Promise<ServerTestResult>;
  /**
   * Runs a job. Output is read on demand: a reader that stops reading pauses the program.
   * @param signal aborted with a {@link StopCause}: the runner kills the process tree, checks that it is
   *   gone, and reports.
   */
  run(
    target: TargetServer<Config>,
    job: Job,
    limits: Limits,
    signal: AbortSignal,
  ): AsyncGenerator<RunEvent, void>;
  /**
   * Kills and removes what is left of a run after its instance has ended, and checks the result.
   * @returns `verified` if nothing of the run is left.
   */
  cleanUp(target: TargetServer<Config>, runId: string): Promise<'verified' | 'unverified'>;
  /** Releases what is cached for a server: connections and pre-started containers. Active runs continue. */
  release(serverId: string): Promise<void>;
  /** The same for all servers of an owner. */
  releaseOwner(owner: Owner): Promise<void>;
  /** Owners for whose servers something is cached or in use. */
  listOwners(): Owner[];
  /** Releases everything. */
  close(): Promise<void>;
}
