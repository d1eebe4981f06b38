import { posix } from 'node:path';
import type { Job, JobFile, Program } from '../runner.ts';

/** A job that cannot be put to a host; the message is for people. */
export class InvalidJobError extends Error {
  override readonly name = 'JobError';
}

const RUN_ID = /^[A-Za-z0-9_-]{1,64}$/;
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** Shells keep these for themselves: to set one ends some of them. */
const RESERVED_VARIABLES = new Set(['BASHOPTS', 'BASH_VERSINFO', 'EUID', 'PPID', 'SHELLOPTS', 'UID']);
/** Longer programs go as counted bytes: the launcher reads lines byte by byte, but without a process for it. */
const MAX_INLINE_BYTES = 2_048;

/**
 * What the launcher of `scripts.ts` reads: lines and counted bytes, in its order.
 * @param marker begins every frame that comes back; of letters and digits.
 * @throws JobError for what a host's shell or file system cannot take.
 */
export function encodeSshJob(job: Job, workdir: string | null, marker: string): Buffer {
  if (!RUN_ID.test(job.runId)) throw new InvalidJobError('The id of the run is not one.');
  const { kind, inline, program } = encodeProgram(job.program);
  const env = Object.entries(job.env);
  const counts = [kind, job.stdin?.length ?? -1, program?.length ?? -1, job.files.length, env.length];
  return Buffer.concat([
    encodeLines(marker, job.runId, workdir === null ? '' : toAbsolutePath(workdir), counts.join(' ')),
    job.stdin ?? new Uint8Array(),
    ...job.files.flatMap(encodeFile),
    inline ?? program ?? new Uint8Array(),
    ...env.map(([name, value]) => encodeVariable(name, value)),
    encodeLines('go', marker),
  ]);
}

interface EncodedProgram {
  /** Of the launcher: a language, `script` for a command in a file, or `command`. */
  kind: string;
  inline?: Buffer;
  program?: Buffer;
}

function encodeProgram(program: Program): EncodedProgram {
  const isCommand = 'command' in program;
  const code = isCommand ? program.command : program.code;
  if (isCommand && code.includes('\0')) throw new InvalidJobError('A command cannot hold a NUL character.');
  const bytes = Buffer.from(code);
  const isShort = bytes.length <= MAX_INLINE_BYTES && !code.includes('\0');
  const kind = isCommand ? (isShort ? 'command' : 'script') : program.language;
  return isShort ? { kind, inline: encodeText(code) } : { kind, program: bytes };
}

function encodeFile(file: JobFile): Uint8Array[] {
  const segments = file.path.split('/');
  const isInvalid = (segment: string) => segment === '' || segment === '.' || segment === '..';
  if (file.path.includes('\0') || segments.some(isInvalid))
    throw new InvalidJobError('The path of a file must be relative, without "..".');
  return [encodeText(file.path), encodeLines(String(file.content.length)), file.content];
}

function encodeVariable(name: string, value: string): Buffer {
  if (!ENV_NAME.test(name) || value.includes('\0'))
    throw new InvalidJobError(
      'The name of a variable has letters, digits and "_", and its value no NUL character.',
    );
  if (RESERVED_VARIABLES.has(name))
    throw new InvalidJobError(`The host's shell keeps the variable ${name} for itself.`);
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

/** Of any number of lines: their count comes first. */
function encodeText(value: string): Buffer {
  const all = value.split('\n');
  return encodeLines(String(all.length), ...all);
}
