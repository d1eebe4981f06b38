import type { RunView } from '../../runs/schema.ts';
import type { StatusTone } from '../components/status-badge.tsx';
import { formatNumber } from './format.ts';

export type RunLanguage = NonNullable<RunView['language']>;
type Cause = NonNullable<RunView['cause']>;

const causes: Record<Exclude<Cause, 'exited' | 'signal'>, { label: string; tone: StatusTone }> = {
  timeout: { label: 'Timed out', tone: 'bad' },
  cancelled: { label: 'Cancelled', tone: 'neutral' },
  out_of_memory: { label: 'Out of memory', tone: 'bad' },
  output_limit: { label: 'Too much output', tone: 'bad' },
  lost: { label: 'May still be running', tone: 'warning' },
  infrastructure: { label: 'Could not run', tone: 'bad' },
};

export interface DescribedRun {
  status: RunView['status'];
  cause: Cause | null;
  code: number | null;
  signal: string | null;
}

/** How a run ended, or what it is doing, in words. */
export function describeRun({ status, cause, code, signal }: DescribedRun): {
  label: string;
  tone: StatusTone;
} {
  if (status === 'queued') return { label: 'Queued', tone: 'busy' };
  if (status === 'running' || cause === null) return { label: 'Running', tone: 'busy' };
  if (cause === 'signal') return { label: `Ended by ${signal ?? 'a signal'}`, tone: 'bad' };
  if (cause !== 'exited') return causes[cause];
  return code === 0
    ? { label: 'Succeeded', tone: 'good' }
    : { label: `Failed (exit ${String(code)})`, tone: 'bad' };
}

export const languageNames: Record<RunLanguage | 'command', string> = {
  python: 'Python',
  javascript: 'JavaScript',
  bash: 'Bash',
  command: 'Command',
};

export const runsTexts = {
  description: 'Code that ran on your execution servers, with its output.',
  start: 'Run code',
  emptyTitle: 'Nothing has run yet',
  emptyText: 'Run Python, JavaScript, Bash or a command on one of your servers and watch its output here.',
  noMatchTitle: 'No run matches',
  noMatchText: 'Choose other filters.',
  noMatchReset: 'Show all runs',
  more: 'Load more',
  filters: { server: 'Server', status: 'Status', language: 'Language', all: 'All' },
  statuses: { queued: 'Queued', running: 'Running', finished: 'Finished' } satisfies Record<
    RunView['status'],
    string
  >,
  columns: { run: 'Run', server: 'Server', started: 'Started', duration: 'Duration', status: 'Status' },
  nameOf: (language: string, id: string) => `${language}, ${id.slice(0, 8)}`,
  tierMissing: 'Running code',
  noServerTitle: 'No server to run on',
  noServerText: 'Add an execution server first.',
  form: {
    title: 'Run code',
    server: 'Server',
    defaultServer: (name: string) => `${name} (default)`,
    language: 'Language',
    code: 'Code',
    command: 'Command',
    figures: 'Show matplotlib figures here',
    options: 'Options',
    stdin: 'Input (stdin)',
    files: 'Files',
    filesHint: 'Written into the folder in which the program starts.',
    env: 'Environment variables',
    envHint: 'One for each line: NAME=value. They are not kept when you sign in again.',
    envError: 'Each line must be NAME=value.',
    workdir: 'Folder',
    workdirHint: 'An absolute path. Empty: the server’s workspace.',
    timeout: 'Time limit in seconds',
    submit: 'Run',
  },
  output: 'Output',
  search: 'Search the output',
  matches: (count: number) => (count === 1 ? '1 line' : `${formatNumber(count)} lines`),
  follow: 'Jump to the end',
  copy: 'Copy output',
  download: 'Download',
  downloadImage: 'Download image',
  imageAlt: 'Image that the program printed',
  noOutput: 'No output',
  waiting: 'Waiting for output',
  queued: (position: number | null) =>
    position === null ? 'Waiting for its turn' : `Waiting: number ${formatNumber(position)} in the queue`,
  preparing: 'Preparing the server',
  dropped: (bytes: number, stream: string) => `${formatNumber(bytes)} bytes of ${stream} are not kept`,
  earlierHidden: (lines: number) => `${formatNumber(lines)} earlier lines are not shown`,
  reconnecting: 'Connection lost. Trying again…',
  cancel: 'Cancel run',
  cancelling: 'Cancelling',
  again: 'Run again',
  program: 'Program',
  programHidden: 'The program cannot be decrypted.',
  ended: (label: string) => `The run has ended: ${label}`,
  cleanup: {
    verified: 'Nothing of it is left on the server, as far as the server reports.',
    unverified: 'It could not be verified that nothing of it is left on the server.',
  },
  hiddenCharacter: (code: string) => `Invisible character ${code}`,
  facts: { server: 'Server', started: 'Started', duration: 'Duration', exit: 'Exit' },
  unknown: '–',
} as const;
