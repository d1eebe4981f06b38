import { constants } from 'node:os';
import type { ExitCause, ExitEvent, StopCause } from '../runner.ts';
import type { ScriptMarker } from './script.ts';

/** All that is known about how a container ended. */
export interface ContainerEnd {
  /** As the engine says. */
  code: number;
  /** Also true when only a child of the program was killed for its memory. */
  wasOomKilled: boolean;
  markers: ReadonlySet<ScriptMarker>;
  /** What the program is written for. */
  interpreter: string;
}

export type DockerExit = Pick<ExitEvent, 'cause' | 'code' | 'signal' | 'message'>;

/** A shell tells of a signal as 128 + its number, and so does the engine. */
const SIGNAL_BASE = 128;
/** The most that a program can exit with: another number is made up by what calls itself an engine. */
const MAX_EXIT_CODE = 255;
const SIGKILL_EXIT_CODE = SIGNAL_BASE + constants.signals.SIGKILL;

/** Judges how a program ended that nobody here stopped. */
export function toDockerExit({ code, wasOomKilled, markers, interpreter }: ContainerEnd): DockerExit {
  if (wasOomKilled && code === SIGKILL_EXIT_CODE)
    return { ...exitWithoutCode('out_of_memory'), signal: 'SIGKILL' };
  if (markers.has('fail:workspace'))
    return exitWithoutCode(
      'infrastructure',
      'The working folder is not in the container, or may not be entered.',
    );
  if (markers.has('fail:interpreter'))
    return exitWithoutCode(
      'infrastructure',
      `The image has no ${interpreter}: choose one that has it for this server.`,
    );
  if (markers.has('fail:files'))
    return exitWithoutCode(
      'infrastructure',
      'The files could not be written to the working folder: it is read-only, full or not writable for ' +
        'user 10001, or a file of that name is there already.',
    );
  if (markers.has('fail:scratch'))
    return exitWithoutCode('infrastructure', "The job does not fit into the container's memory.");
  if (!markers.has('start'))
    return exitWithoutCode('infrastructure', 'The container ended before the program started.');
  if (!Number.isInteger(code) || code < 0 || code > MAX_EXIT_CODE)
    return exitWithoutCode('lost', 'The engine told of an exit code that no program has.');
  const signal = findSignalName(code);
  // Without either record it was not the script that ended the container.
  if (signal !== null && !markers.has('exited')) return { ...exitWithoutCode('signal'), signal };
  if (!markers.has('exited'))
    return exitWithoutCode('lost', 'The container ended without a word about its program.');
  return { ...exitWithoutCode('exited'), code };
}

/** A verdict where the program has no code of its own. */
export function exitWithoutCode(cause: ExitCause | StopCause, message: string | null = null): DockerExit {
  return { cause, code: null, signal: null, message };
}

function findSignalName(code: number): string | null {
  const number = code - SIGNAL_BASE;
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? null;
}
