import { stripVTControlCharacters } from 'node:util';
import { createRedactor } from '../../lib/redact.ts';
import type { ExecResult } from '../../lib/ssh/connections.ts';
import {
  describeShellStart,
  type ShellStartProblem,
  type StartedCommand,
} from '../../lib/ssh/shell-start.ts';
import { toVisibleText } from '../../lib/visible-text.ts';
import type { ServerTestResult, TargetServer } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { DockerError } from './errors.ts';

/** `docker system dial-stdio` was not started on the SSH server, or ended without an answer of the engine. */
export class DialError extends DockerError {
  /** Of a test that failed with this error. */
  readonly testStatus: ServerTestResult['status'];

  constructor(message: string, testStatus: ServerTestResult['status']) {
    super(message);
    this.testStatus = testStatus;
  }
}

/** `docker system dial-stdio` was not started, so nothing of a request was sent. */
export class DialStartError extends DialError {}

interface DialCause {
  /** Exit code of the `sh` that was to start the program (POSIX, "Exit Status for Commands"). */
  code?: number;
  /** Of the error output. The texts differ between versions of `sh` and of docker, so only parts are matched. */
  pattern: RegExp;
  message: string;
  testStatus: ServerTestResult['status'];
}

/** The first that matches counts. */
const CAUSES: readonly DialCause[] = [
  {
    code: 127,
    pattern: /docker: (?:command )?not found|command not found: docker$/im,
    message:
      'The account of the SSH server finds no docker program: install Docker there, or add its folder to the PATH of ' +
      'commands that are run over SSH.',
    testStatus: 'error',
  },
  {
    code: 126,
    pattern: /docker: permission denied/i,
    message: 'The account of the SSH server may not execute the docker program.',
    testStatus: 'forbidden',
  },
  {
    pattern: /unknown command|unrecognized command|is not a docker command|^usage:\s+docker system/im,
    message:
      'The docker program on the SSH server has no `docker system dial-stdio`: install Docker 18.09 or newer there.',
    testStatus: 'error',
  },
  {
    pattern: /\bdial (?:unix|tcp)\b.*permission denied/i,
    message:
      "The account of the SSH server may not use Docker's socket: add it to the group docker, which gives it root " +
      'rights there.',
    testStatus: 'forbidden',
  },
  {
    pattern: /\bdial (?:unix|tcp)\b|cannot connect to the docker daemon/i,
    message:
      'The docker program on the SSH server does not reach its engine: start the engine. If it has another socket, as ' +
      'a rootless engine has, run `docker context use rootless` there as the account, or set DOCKER_HOST in a start file ' +
      'that its shell reads for commands over SSH (bash: at the head of ~/.bashrc).',
    testStatus: 'offline',
  },
];
const OTHER_CAUSE =
  'The docker program on the SSH server ended, or the connection to it broke, before the engine answered.';
const DOCKER: StartedCommand = { server: 'SSH server', name: 'docker', data: 'the request' };
/** They precede the error. podman prints the second one where it stands in for docker. */
const NOTICE = /^(?:warning:|emulate docker cli using podman)/i;
const MAX_QUOTE_LENGTH = 200;
/** Searching for long values in all their encodings takes long; their begins identify them. */
const MAX_SEARCHED_LENGTH = 64;
/** A line of a private key. Shorter lines would be found in other text. */
const MIN_KEY_LINE_LENGTH = 20;

/**
 * The message names the cause and quotes the program's first line of error output, without secrets of the target. The
 * owner of the target may run any program on the SSH server, so the line reveals nothing.
 */
export function createDialError(
  { code, stderr }: Pick<ExecResult, 'code' | 'stderr'>,
  target: TargetServer<DockerConfig>,
): DialError {
  const text = Buffer.from(stderr, 'latin1').toString();
  const cause = CAUSES.find(
    (each) => (each.code !== undefined && each.code === code) || each.pattern.test(text),
  );
  const message = `${cause?.message ?? OTHER_CAUSE}${quoteErrorLine(text, target)}`;
  return new DialError(message, cause?.testStatus ?? 'error');
}

/**
 * The error of an account whose shell did not start docker.
 * @param problem undefined when the shell ended before: the message then quotes a line, as that of {@link createDialError}.
 */
export function createDialStartError(
  problem: ShellStartProblem | undefined,
  { stderr }: Pick<ExecResult, 'stderr'>,
  target: TargetServer<DockerConfig>,
): DialStartError {
  const message = describeShellStart(problem, DOCKER);
  if (problem !== undefined) return new DialStartError(message, 'error');
  const text = Buffer.from(stderr, 'latin1').toString();
  return new DialStartError(`${message}${quoteErrorLine(text, target)}`, 'error');
}

/** @returns a sentence that follows another one, or nothing. */
function quoteErrorLine(text: string, target: TargetServer<DockerConfig>): string {
  const lines = stripVTControlCharacters(text)
    .split(/[\r\n]/)
    .map((line) => toVisibleText(line).trim())
    .filter((line) => line !== '');
  const line = lines.find((each) => !NOTICE.test(each)) ?? lines[0];
  if (line === undefined) return '';
  const quote = line.length > MAX_QUOTE_LENGTH ? `${line.slice(0, MAX_QUOTE_LENGTH - 1)}…` : line;
  const redact = createRedactor(listSecrets(target).map((secret) => secret.slice(0, MAX_SEARCHED_LENGTH)));
  return redact(line) === line ? ` It printed: ${quote}` : '';
}

/** The secrets of the engine's server and of the SSH servers on the way to it. */
function listSecrets(target: TargetServer<DockerConfig>): string[] {
  const { client_key: key, environment } = target.config;
  return [
    ...listSecretLines(key),
    ...Object.values(environment ?? {}),
    ...[...target.jumpServers.values()].flatMap(listSshSecrets),
  ];
}

function listSshSecrets({ config, jumpServers }: TargetServer): string[] {
  const { password, passphrase, private_key: key, environment } = config as Readonly<Record<string, unknown>>;
  return [
    ...[
      password,
      passphrase,
      ...Object.values<unknown>({ ...(environment as object | null | undefined) }),
    ].filter((value) => typeof value === 'string'),
    ...listSecretLines(key),
    ...[...jumpServers.values()].flatMap(listSshSecrets),
  ];
}

function listSecretLines(key: unknown): string[] {
  if (typeof key !== 'string') return [];
  return key.split('\n').filter((line) => line.length >= MIN_KEY_LINE_LENGTH && !line.startsWith('-----'));
}
