/** Why the account's shell has not started the script of a command. */
export type ShellStartProblem =
  /** The command was not run: another program, such as a shell, reads the channel's input. */
  | 'input'
  /** Neither the command nor anything else reacts. */
  | 'silent'
  /** The account may start no more processes. */
  | 'processes'
  /** More output than start files print. */
  | 'output';

/** Watches a channel until the script reports that it runs. */
export interface ShellStart {
  /** Reads output that precedes the script's. */
  read(chunk: Buffer): void;
  /** Why nothing was started, as far as the output shows. */
  problem(): ShellStartProblem | undefined;
  /** The script has started, or the channel has closed. */
  close(): void;
}

/** The words for a command in the messages of {@link describeShellStart}. */
export interface StartedCommand {
  /** What the server is called. */
  server: 'server' | 'SSH server';
  name: string;
  /** What is sent to it. */
  data: string;
}

/** Why a command was not started and what to do, for users. @param problem undefined when the shell ended before. */
export function describeShellStart(
  problem: ShellStartProblem | undefined,
  { server, name, data }: StartedCommand,
): string {
  const notRun = `The ${server} accepted the sign-in but did not run ${name}`;
  switch (problem) {
    case 'input':
      return (
        `${notRun}: another program reads its input, so nothing of ${data} was sent. The start files of the account's ` +
        'shell (such as .bashrc) may start another shell ("exec bash"), which they must do in interactive shells only, or ' +
        'its sshd_config has a ForceCommand.'
      );
    case 'silent':
      return (
        `${notRun} within 15 s, so nothing of ${data} was sent. Check the start files of the account's shell (such as ` +
        '.bashrc), ForceCommand in sshd_config, and whether the password of the account has expired.'
      );
    case 'processes':
      return (
        `The account may start no more processes on the ${server} (ulimit -u). End some of its processes, or raise the ` +
        'limit in /etc/security/limits.conf.'
      );
    case 'output':
      return `${notRun}: the account may have a forced command, or the start files of its shell print too much.`;
    case undefined:
      return (
        `${notRun}: the account may have no shell or a forced command, its shell's start files may fail, or the ` +
        'password of the account may have expired (sign in once with a terminal, and change it).'
      );
  }
}

/** After this time a line finds out whether another program reads the input. Start files may take longer. */
const PROBE_MS = 10_000;
/** Then the input ends, because some programs, such as fish, read all of it first. */
const END_MS = 15_000;
const MAX_START_MS = 16_000;
const MAX_OUTPUT_BYTES = 64 * 1024;
/** Of the output: enough for an error and the answer to the probe. */
const MAX_KEPT_LENGTH = 1_024;
/** Texts of shells and of sshd when fork(2) fails with EAGAIN. */
const NO_PROCESS = /cannot fork|can't fork|fork: |no more processes|resource temporarily unavailable/i;

/**
 * An SSH server gives a command to the account's shell, which may not run it: its start files may start another shell, or
 * the server has another command for the account. What is sent would then be read as commands. The script of a command
 * therefore reports with RS and the marker that it runs, and nothing but the probe is sent before.
 * @param options.marker random; the name of the script. A program that reads the input as commands, or repeats it, prints it.
 * @param options.probe sends a line. It is a harmless command, and the script skips it.
 * @param options.endInput ends the channel's input.
 * @param options.fail ends the channel, since the script will not start.
 */
export function watchShellStart({
  marker,
  probe,
  endInput,
  fail,
}: {
  marker: string;
  probe: (line: string) => void;
  endInput: () => void;
  fail: () => void;
}): ShellStart {
  // In the script's report RS precedes the marker.
  const answer = new RegExp(`(?<!\\x1e)${marker}`);
  let lastOutput = '';
  let bytes = 0;
  let found: ShellStartProblem | undefined;
  let isProbed = false;

  function stop(problem: ShellStartProblem): void {
    found = problem;
    close();
    fail();
  }
  const timers = [
    setTimeout(() => {
      isProbed = true;
      probe(`echo ${marker}\n`);
    }, PROBE_MS),
    setTimeout(() => {
      found = 'silent';
      endInput();
    }, END_MS),
    setTimeout(() => stop('silent'), MAX_START_MS),
  ];
  function close(): void {
    for (const timer of timers) clearTimeout(timer);
  }

  return {
    read(chunk) {
      bytes += chunk.length;
      lastOutput = (lastOutput + chunk.toString('latin1')).slice(-MAX_KEPT_LENGTH);
      if (bytes > MAX_OUTPUT_BYTES) stop('output');
      else if (isProbed && answer.test(lastOutput)) stop('input');
    },
    problem: () => (NO_PROCESS.test(lastOutput) ? 'processes' : found),
    close,
  };
}
