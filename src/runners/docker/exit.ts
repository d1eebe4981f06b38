import type { ExitCause, ExitEvent, StopCause } from '../runner.ts';
import { findSignalName, MAX_EXIT_CODE, missingInImageMessage } from '../shell.ts';
import type { ScriptMarker } from './script.ts';

/** Everything known about the end of a container. */
export interface ContainerEnd {
  /** As reported by the engine. */
  code: number;
  /** Also true if only a child of the program was killed for its memory. */
  wasOomKilled: boolean;
  markers: ReadonlySet<ScriptMarker>;
  /** Name of the program's interpreter. */
  interpreter: string;
  image: string;
}

export type DockerExit = Pick<ExitEvent, 'cause' | 'code' | 'signal' | 'message'>;

/** Determines how a program ended that was not stopped. */
export function toDockerExit({ code, wasOomKilled, markers, ...program }: ContainerEnd): DockerExit {
  const signal = findSignalName(code);
  if (wasOomKilled && signal === 'SIGKILL') return { ...exitWithoutCode('out_of_memory'), signal };
  if (markers.has('fail:workspace'))
    return exitWithoutCode(
      'infrastructure',
      'The working folder does not exist in the container, or cannot be entered.',
    );
  if (markers.has('fail:interpreter'))
    return exitWithoutCode('infrastructure', missingInImageMessage(program.image, program.interpreter));
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
    return exitWithoutCode('lost', 'The engine reported an invalid exit code.');
  // Without a marker, something other than the script ended the container.
  if (signal !== null && !markers.has('exited')) return { ...exitWithoutCode('signal'), signal };
  if (!markers.has('exited'))
    return exitWithoutCode('lost', 'The container ended without reporting how its program ended.');
  return { ...exitWithoutCode('exited'), code };
}

/** An exit without an exit code. */
export function exitWithoutCode(cause: ExitCause | StopCause, message: string | null = null): DockerExit {
  return { cause, code: null, signal: null, message };
}
