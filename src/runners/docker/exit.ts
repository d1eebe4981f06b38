import { constants } from 'node:os';
import type { ExitCause, ExitEvent, StopCause } from '../runner.ts';
import type { ScriptRecord } from './script.ts';

/** All that is known about how a container ended. */
export interface Ending {
  /** As the engine says. */
  code: number;
  /** Also true when only a child of the program was killed for its memory. */
  wasOomKilled: boolean;
  records: ReadonlySet<ScriptRecord>;
  /** What the program is written for. */
  interpreter: string;
}

export type Verdict = Pick<ExitEvent, 'cause' | 'code' | 'signal' | 'message'>;

/** A shell tells of a signal as 128 + its number, and so does the engine. */
const SIGNAL_BASE = 128;
/** The most that a program can exit with: another number is made up by what calls itself an engine. */
const MAX_CODE = 255;
const KILLED = SIGNAL_BASE + constants.signals.SIGKILL;

/** Judges how a program ended that nobody here stopped. */
export function judge({ code, wasOomKilled, records, interpreter }: Ending): Verdict {
  if (wasOomKilled && code === KILLED) return { ...none('out_of_memory'), signal: 'SIGKILL' };
  if (records.has('fail:workspace'))
    return none('infrastructure', 'The working folder is not in the container, or may not be entered.');
  if (records.has('fail:interpreter'))
    return none('infrastructure', `The image has no ${interpreter}: choose one that has it for this server.`);
  if (records.has('fail:files'))
    return none(
      'infrastructure',
      'The files could not be written to the working folder: it is read-only, full or not writable for ' +
        'user 10001, or a file of that name is there already.',
    );
  if (records.has('fail:scratch'))
    return none('infrastructure', "The job does not fit into the container's memory.");
  if (!records.has('start')) return none('infrastructure', 'The container ended before the program started.');
  if (!Number.isInteger(code) || code < 0 || code > MAX_CODE)
    return none('lost', 'The engine told of an exit code that no program has.');
  const signal = signalOf(code);
  // Without either record it was not the script that ended the container.
  if (signal !== null && !records.has('exited')) return { ...none('signal'), signal };
  if (!records.has('exited')) return none('lost', 'The container ended without a word about its program.');
  return { ...none('exited'), code };
}

/** A verdict where the program has no code of its own. */
export function none(cause: ExitCause | StopCause, message: string | null = null): Verdict {
  return { cause, code: null, signal: null, message };
}

function signalOf(code: number): string | null {
  const number = code - SIGNAL_BASE;
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? null;
}
