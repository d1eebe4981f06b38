import type { ZodType } from 'zod';
import type { Owner } from '../lib/owner.ts';

/** The kinds of servers that run code. One file or folder each beside this one, listed in `index.ts`. */
export const SERVER_TYPES = ['ssh', 'docker', 'kubernetes', 'local'] as const;
export type ServerType = (typeof SERVER_TYPES)[number];

export const LANGUAGES = ['python', 'javascript', 'bash'] as const;
export type Language = (typeof LANGUAGES)[number];

/** An SSH host key as people compare it. */
export interface HostKey {
  /** As in the SSH protocol, e.g. `ssh-ed25519`. */
  type: string;
  /** `SHA256:` and unpadded base64, as OpenSSH prints it. */
  fingerprint: string;
}

/**
 * A server as it is dialled: one snapshot, with its secrets opened. Lives as long as a test or a run, and is
 * never logged.
 */
export interface TargetServer<Config = unknown> {
  /** The server's id; random for a configuration that was not stored. */
  serverId: string;
  /** Owner of the server. Nothing is shared between owners. */
  owner: Owner;
  /** Raised with every change of the server: with it, what was kept for an older version is of no use. */
  version: number;
  /** Parsed by the runner's own schema, secrets in the clear. */
  config: Config;
  /** The confirmed host key; null before that, and for servers without one. */
  hostKey: HostKey | null;
  /** Where jobs run that name no other folder; null is the account's or image's own. */
  workspacePath: string | null;
  /** The owner's other servers that this one goes through, by id: the jump host, the host of an engine. */
  jumpServers: ReadonlyMap<string, TargetServer>;
}

export type Program = { language: Language; code: string } | { command: string };

export interface JobFile {
  /** Relative to the job's folder, without `..`; folders are made. */
  path: string;
  content: Uint8Array;
}

/** What is to be run. Everything in it is data: no part is ever put together with a shell's text unquoted. */
export interface Job {
  runId: string;
  program: Program;
  /** Null is an empty input: the program reads its end at once. */
  stdin: Uint8Array | null;
  /** Written before the program starts, beside it (in its working folder), and removed after it. */
  files: readonly JobFile[];
  /** Names `[A-Za-z_][A-Za-z0-9_]*`. */
  env: Readonly<Record<string, string>>;
  /** Absolute; null is the server's workspace, and without one a new folder that is removed afterwards. */
  workdir: string | null;
}

/** Null: not asked for, so that the runner's own default holds. */
export interface Limits {
  timeoutMs: number;
  /** Of both streams together. */
  maxOutputBytes: number;
  memoryBytes: number | null;
  cpus: number | null;
  pids: number | null;
  network: 'none' | 'any' | null;
}

/** The limits that not every runner can enforce. Those of time and output hold everywhere. */
export type OptionalLimit = 'memoryBytes' | 'cpus' | 'pids' | 'network';

/** Why a run was ended from this side: what a run's signal is aborted with. */
export type StopCause = 'timeout' | 'cancelled' | 'output_limit';

export type ExitCause =
  | StopCause
  /** The program ended by itself; `code` tells how. */
  | 'exited'
  /** A signal that nobody here sent ended it. */
  | 'signal'
  | 'out_of_memory'
  /** It was seen to start, and then nobody could tell how it ended. */
  | 'lost'
  /** It could not be started, or the server failed under it: no fault of the program. */
  | 'infrastructure';

export type OutputStream = 'stdout' | 'stderr';

export interface ExitEvent {
  type: 'exit';
  cause: ExitCause;
  /** The program's own, where it has one: never 0 unless the server said so. */
  code: number | null;
  /** E.g. `SIGKILL`. */
  signal: string | null;
  /** `verified`: looked at afterwards, and nothing of the run was left. */
  cleanup: 'verified' | 'unverified';
  /** What to do about it, for people; null where cause and code say it all. Never a secret, never what a server sent. */
  message: string | null;
}

export type RunEvent =
  | { type: 'phase'; phase: 'preparing' | 'started' }
  | { type: 'output'; stream: OutputStream; data: Uint8Array }
  | ExitEvent;

/** In the order in which they are tried. `host_key` is SSH's, `tls` the others'. */
export const TEST_STAGES = [
  'policy',
  'tcp',
  'host_key',
  'tls',
  'authentication',
  'permission',
  'workspace',
  'echo',
  'kill',
  'cleanup',
] as const;
export type TestStageName = (typeof TEST_STAGES)[number];

/** How a test ended; `untested` is a server's state before its first. */
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
  /** What was found and, where it failed, what to do. Never a secret, never what a server sent. */
  message: string;
}

export interface ServerTestResult {
  status: Exclude<ServerTestStatus, 'untested'>;
  message: string;
  stages: TestStage[];
  /** The key that was shown where it is unknown or has changed; `hop` is the id of the jump server that showed it. */
  hostKey: (HostKey & { hop: string | null }) | null;
}

/**
 * A kind of server. Held to its promises by one suite over all of them (test/runners/contract.ts):
 * exactly one `exit`, last; a signal means kill the whole process tree, look, then report; a reader that does not
 * read holds the program back and costs no memory; a limit is enforced or listed as one that is not; without a
 * status the cause is `lost`, never code 0; a failure of the server is never a failure of the program.
 */
export interface Runner<Config = unknown> {
  readonly type: ServerType;
  /**
   * The `connection_config` of the wire, with nothing undeclared. Read what people send by `parseAsync` and keep what
   * comes out: that can be read again by `parse`. @throws ZodError with messages for people.
   */
  readonly config: ZodType<Config>;
  /** The members of the configuration that are sealed, and that nobody reads back. */
  readonly secretFields: readonly string[];
  /** Everything that says where secrets go: sealed with them, compared at every use. */
  destination(config: Config, hostKey: HostKey | null): unknown;
  /** Ids of the owner's SSH servers that it goes through. */
  jumpServerIds(config: Config): readonly string[];
  /** True where nothing may be run before a host key was confirmed. */
  readonly needsHostKey: boolean;
  /** Which of the limits asked for cannot be enforced there: such a run is refused. */
  unenforceableLimits(config: Config, limits: Limits): readonly OptionalLimit[];
  /** Tries a server stage by stage; answers within a minute. Throws only the reason of `signal`. */
  test(target: TargetServer<Config>, signal: AbortSignal): Promise<ServerTestResult>;
  /**
   * Runs a job. The output comes as it is read: whoever does not read holds the program back.
   * @param signal aborted with a {@link StopCause}: the process tree is killed, looked for, and then reported.
   */
  run(
    target: TargetServer<Config>,
    job: Job,
    limits: Limits,
    signal: AbortSignal,
  ): AsyncGenerator<RunEvent, void>;
  /**
   * Ends whatever is left of a run whose instance has died, and looks.
   * @returns `verified` when nothing of it is there any more.
   */
  cleanUp(target: TargetServer<Config>, runId: string): Promise<'verified' | 'unverified'>;
  /** Lets go of what is kept for a server: connections, containers made in advance. Runs under way go on. */
  forget(serverId: string): Promise<void>;
  /** Lets go of everything. */
  close(): Promise<void>;
}
