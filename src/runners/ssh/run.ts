import { randomBytes } from 'node:crypto';
import { posix } from 'node:path';
import type { SshConfig } from '../../lib/ssh/config.ts';
import type { SshConnections } from '../../lib/ssh/connections.ts';
import { findReservedVariableProblem } from '../../lib/ssh/program-settings.ts';
import { listProgramNames } from '../interpreters.ts';
import type { Job, JobFile, Program, RunEvent } from '../runner.ts';
import { SETUP_SCRIPT, SETUP_SHELLS, type Setup } from '../setup.ts';
import { getInterpreter, isVariableName } from '../shell.ts';
import { InvalidJobError, toSshExit, toSshStartFailure } from './exit.ts';
import { createLaunchCommand, SETUP_PART } from './scripts.ts';
import { openSshSession, WatcherTimeoutError, type FrameSecrets, type SshSession } from './session.ts';
import { PERL_SUPERVISOR, PYTHON_SUPERVISOR } from './supervisor.ts';

const RUN_ID = /^[A-Za-z0-9_-]{1,64}$/;
/** Longer programs are sent as counted bytes: the shell reads lines byte by byte, but without starting a process. */
const MAX_INLINE_BYTES = 2_048;

/** What a job uses of its server. */
export interface SshJobServer {
  workspacePath: string | null;
  config: Pick<SshConfig, 'environment' | 'interpreters'>;
  /** Of this run. Then the markers of the set-up are in its output. */
  setup?: Setup | undefined;
}

/** Starts the launcher on a pooled connection, or in a test on a dedicated one. */
export type StartLauncher = (command: string, signal: AbortSignal) => ReturnType<SshConnections['exec']>;

export interface SshRunDeps {
  start: StartLauncher;
  /** Cleans up over a separate channel; called when the host has not proven that nothing is left. It verifies nothing. */
  cleanUp(runId: string): Promise<unknown>;
}

/** Implements {@link import('../runner.ts').Runner.run}. */
export async function* runSshJob(
  deps: SshRunDeps,
  server: SshJobServer,
  job: Job,
  signal: AbortSignal,
): AsyncGenerator<RunEvent, void> {
  yield { type: 'phase', phase: 'preparing' };
  let session: SshSession;
  try {
    session = await startSshJob(deps.start, server, job, signal);
  } catch (error) {
    yield toSshStartFailure(error, signal);
    return;
  }
  const terminate = () => session.terminate();
  signal.addEventListener('abort', terminate, { once: true });
  if (signal.aborted) terminate();
  try {
    yield* readEvents(session);
    const result = session.result();
    const { isReady, refusal, report } = result;
    if (isReady && refusal === undefined && report !== 'proven') await deps.cleanUp(job.runId);
    // Before the launcher is ready, the host has received nothing of the run.
    const isClean = isReady ? (refusal?.isClean ?? report === 'proven') : true;
    const cleanup = isClean ? 'verified' : 'unverified';
    yield toSshExit(result, { cleanup, interpreters: server.config.interpreters }, signal);
  } finally {
    signal.removeEventListener('abort', terminate);
    // A caller that stops reading early ends the run.
    session.terminate();
    session.close();
  }
}

/** Starts the launcher, which is sent the job when it is ready. @throws SshError, InvalidJobError or the signal's reason. */
export async function startSshJob(
  start: StartLauncher,
  server: SshJobServer,
  job: Job,
  signal: AbortSignal,
): Promise<SshSession> {
  const random = () => randomBytes(16).toString('hex');
  const secrets = { marker: random(), supervisorProof: random(), watcherProof: random() };
  const input = encodeSshJob(job, server, secrets);
  return openSshSession(await start(createLaunchCommand(secrets.marker), signal), secrets, input);
}

async function* readEvents(session: SshSession): AsyncGenerator<RunEvent, void> {
  try {
    for (let event = await session.next(); event !== undefined; event = await session.next()) {
      yield event.type === 'started' ? { type: 'phase', phase: 'started' } : event;
    }
  } catch (error) {
    if (!(error instanceof WatcherTimeoutError)) throw error;
    session.close();
  }
}

/**
 * Encodes a job as the lines and counted bytes that the boot script and the launcher of `scripts.ts` read, in their order.
 * @throws InvalidJobError for what a host's shell or file system cannot represent.
 */
export function encodeSshJob(job: Job, server: SshJobServer, secrets: FrameSecrets): Buffer {
  if (!RUN_ID.test(job.runId)) throw new InvalidJobError('The id of the run is invalid.');
  const workdir = job.workdir ?? server.workspacePath;
  const { kind, inline, program } = encodeProgram(job.program);
  const { flags, extension } = getInterpreter(job.program);
  const names = listProgramNames(job.program, server.config.interpreters);
  const { setup } = server;
  const env = Object.entries({ ...server.config.environment, ...job.env, ...setup?.env });
  const searched = setup === undefined ? names : SETUP_SHELLS;
  const counts = [env.length, kind, job.stdin?.length ?? -1, program?.length ?? -1, job.files.length];
  const words = [...counts, searched.length, setup === undefined ? 0 : 1, extension, ...flags];
  return Buffer.concat([
    encodeLines(secrets.marker),
    SUPERVISORS,
    encodeLines(job.runId, secrets.marker + secrets.supervisorProof),
    encodeLines(secrets.marker, workdir === null ? '' : toAbsolutePath(workdir), words.join(' ')),
    ...env.map(([name, value]) => encodeVariable(name, value)),
    job.stdin ?? new Uint8Array(),
    ...job.files.flatMap(encodeFile),
    inline ?? new Uint8Array(),
    encodeLines(...searched),
    ...(setup === undefined ? [] : encodeSetup(names)),
    program ?? new Uint8Array(),
    encodeLines('go', secrets.marker + secrets.watcherProof),
  ]);
}

interface EncodedProgram {
  /** As the launcher reads it: a language, `script` for a command in a file, or `command`. */
  kind: string;
  inline?: Buffer;
  program?: Buffer;
}

function encodeProgram(program: Program): EncodedProgram {
  const isCommand = 'command' in program;
  const code = isCommand ? program.command : program.code;
  if (isCommand && code.includes('\0'))
    throw new InvalidJobError('A command must not contain a NUL character.');
  const bytes = Buffer.from(code);
  const isShort = bytes.length <= MAX_INLINE_BYTES && !code.includes('\0');
  const kind = isCommand ? (isShort ? 'command' : 'script') : program.language;
  return isShort ? { kind, inline: encodeText(code) } : { kind, program: bytes };
}

function encodeSetup([first = '', second = '']: readonly string[]): Buffer[] {
  return [encodeText(SETUP_PART), encodeText(SETUP_SCRIPT), encodeLines(first, second)];
}

function encodeFile(file: JobFile): Uint8Array[] {
  const segments = file.path.split('/');
  const isInvalid = (segment: string) => segment === '' || segment === '.' || segment === '..';
  if (file.path.includes('\0') || segments.some(isInvalid))
    throw new InvalidJobError('The path of a file must be relative, without "..".');
  return [encodeText(file.path), encodeLines(String(file.content.length)), file.content];
}

function encodeVariable(name: string, value: string): Buffer {
  if (!isVariableName(name) || value.includes('\0'))
    throw new InvalidJobError(
      'The name of a variable may have letters, digits and "_", and its value must not contain a NUL character.',
    );
  const problem = findReservedVariableProblem(name);
  if (problem !== undefined) throw new InvalidJobError(problem);
  return encodeText(`${name}=${value}`);
}

function toAbsolutePath(path: string): string {
  if (!path.startsWith('/') || /\p{Cc}/u.test(path))
    throw new InvalidJobError('The working folder must be an absolute path without control characters.');
  return posix.normalize(path);
}

function encodeLines(...texts: string[]): Buffer {
  return Buffer.from(texts.map((each) => `${each}\n`).join(''));
}

/** Encodes text of any number of lines: the number of lines, then the lines. */
function encodeText(value: string): Buffer {
  const lines = value.split('\n');
  return encodeLines(String(lines.length), ...lines);
}

const SUPERVISORS = Buffer.concat([encodeText(PERL_SUPERVISOR), encodeText(PYTHON_SUPERVISOR)]);
