import { randomBytes } from 'node:crypto';
import { rejectOnAbort } from '../../lib/async/reject-on-abort.ts';
import type { ConnectorStream } from '../../lib/net/tls-connector.ts';
import type { ExecResult, ExecStream, SshConnections } from '../../lib/ssh/connections.ts';
import { toShellCommand } from '../../lib/ssh/shell-command.ts';
import { watchShellStart, type ShellStartProblem } from '../../lib/ssh/shell-start.ts';
import { createMarkerReader } from '../marker-stream.ts';
import type { TargetServer } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { createDialError, createDialStartError } from './dial-error.ts';

/**
 * Reports on both outputs that it runs, and becomes docker at the line that its name, the marker, is. An earlier line was
 * sent to find out who reads the input. Docker has `dial-stdio`, which forwards its input and output to the engine, from
 * 18.09 on.
 */
const DIAL_SCRIPT = `
printf "\\036%s\\n" "$0" >&2
printf "\\036%s\\n" "$0"
while IFS= read -r line; do [ "$line" != "$0" ] || exec docker system dial-stdio; done
exit 1
`;
const createDialCommand = toShellCommand(DIAL_SCRIPT);

/** The end of the output and that of the error output arrive together. */
const EXIT_TIMEOUT_MS = 1_000;

/**
 * Opens a stream to the engine of an SSH server. The account's shell may not run the command that it is given, and would
 * read a request, with the program and the variables in it, as commands. So nothing of a request is written before the
 * script has reported with a nonce; that takes one round trip.
 *
 * After a failure the connection to the SSH server is not used again: the account's new groups and variables, and a new
 * configuration of the server, count for new connections only.
 * @throws DialError when docker was not started, SshError, or the signal's reason.
 */
export async function openDialStream(
  ssh: Pick<SshConnections, 'openExecStream' | 'release'>,
  server: TargetServer,
  target: TargetServer<DockerConfig>,
  signal: AbortSignal,
): Promise<ConnectorStream> {
  const marker = randomBytes(16).toString('hex');
  const stream = await ssh.openExecStream(server, createDialCommand(marker), signal);
  const start = await waitForScript(stream, marker, signal);
  if (start !== 'ready') {
    ssh.release(server.serverId);
    throw createDialStartError(start.problem, withoutMarker(start.result, marker), target);
  }
  stream.write(`${marker}\n`);
  return explainEnd(stream, (result) => {
    ssh.release(server.serverId);
    return createDialError(toDockerResult(result, marker), target);
  });
}

interface FailedStart {
  /** Undefined when the program ended before it reported. */
  problem: ShellStartProblem | undefined;
  result: ExecResult;
}

/** Drops what precedes the script's report. The stream is paused then, and ended after a failure. */
async function waitForScript(
  stream: ExecStream,
  marker: string,
  signal: AbortSignal,
): Promise<'ready' | FailedStart> {
  const started = Promise.withResolvers<boolean>();
  const shellStart = watchShellStart({
    marker,
    probe: (line) => stream.write(line),
    endInput: () => stream.end(),
    fail: () => started.resolve(false),
  });
  const reader = createMarkerReader(Buffer.from(`\x1e${marker}`), (text) =>
    text === '' ? 'ready' : undefined,
  );
  const read = (chunk: Buffer) => {
    const items = reader.read(chunk);
    const position = items.indexOf('ready');
    if (position === -1) {
      shellStart.read(chunk);
      return;
    }
    stream.off('data', read).pause();
    const rest = items.slice(position + 1).filter((item) => Buffer.isBuffer(item));
    stream.unshift(Buffer.concat([...rest, reader.flush()]));
    // The script has no use once its input has ended.
    started.resolve(!stream.writableEnded);
  };
  // The stream reports a failed write also by its end.
  stream.on('error', () => undefined).on('data', read);
  void stream.ended.then(() => started.resolve(false));
  try {
    if (await rejectOnAbort(started.promise, signal)) return 'ready';
  } catch (error) {
    stream.destroy();
    throw error;
  } finally {
    shellStart.close();
  }
  stream.destroy();
  const result = await readResult(stream);
  shellStart.read(Buffer.from(result.stderr, 'latin1'));
  return { problem: shellStart.problem(), result };
}

async function readResult(stream: ExecStream): Promise<ExecResult> {
  const timeout = Promise.withResolvers<ExecResult>();
  const timer = setTimeout(timeout.resolve, EXIT_TIMEOUT_MS, { code: null, signal: null, stderr: '' });
  const result = await Promise.race([stream.ended, timeout.promise]);
  clearTimeout(timer);
  return result;
}

/** Adds the reason why docker ended if it printed nothing. */
function explainEnd(stream: ExecStream, toError: (result: ExecResult) => Error): ConnectorStream {
  let hasOutput = false;
  stream.once('data', () => {
    hasOutput = true;
  });
  return Object.assign(stream, {
    findEndError: async () => (hasOutput ? undefined : toError(await readResult(stream))),
  });
}

/** Drops the error output that precedes the script's report: it is of the account's start files. */
function toDockerResult(result: ExecResult, marker: string): ExecResult {
  const report = `\x1e${marker}\n`;
  const start = result.stderr.indexOf(report);
  const stderr = start === -1 ? '' : result.stderr.slice(start + report.length);
  return withoutMarker({ ...result, stderr }, marker);
}

/** The script's shell begins its errors with its name, which is the marker. */
function withoutMarker(result: ExecResult, marker: string): ExecResult {
  return { ...result, stderr: result.stderr.replaceAll(marker, 'sh') };
}
