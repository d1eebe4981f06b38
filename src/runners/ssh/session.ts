import type { ClientChannel } from 'ssh2';
import { pauseChannelWindow, resumeChannelWindow } from '../../lib/ssh/back-pressure.ts';
import { discardChannel } from '../../lib/ssh/discard-channel.ts';
import { watchShellStart, type ShellStartProblem } from '../../lib/ssh/shell-start.ts';
import { createMarkerReader, type MarkerReader } from '../marker-stream.ts';
import type { OutputStream } from '../runner.ts';

/** What a host has to find and kill the processes of a run. */
export type Supervision =
  /** A supervisor is the ancestor of all of them. */
  | 'supervisor'
  /** They are searched for in /proc. */
  | 'search'
  /** There is no /proc: only the program's process group is killed. */
  | 'group';

/** A message of the launcher or the watcher within a program's output: a letter, and optionally words. */
export type Frame =
  /** The launcher runs and waits for the job. */
  | { kind: 'ready' }
  /** The program starts. Earlier bytes on this stream are output of the account's shell. */
  | { kind: 'started'; supervision: Supervision }
  /** The program was not started. @property missing what the host lacks, in the host's words. */
  | { kind: 'refused'; reason: string; missing: readonly string[]; isClean: boolean }
  /**
   * The processes of the run were killed and searched for.
   * @property by the watcher where there is no supervisor.
   * @property isSilent the host ended the program, since it received no heartbeat for 15 s.
   */
  | { kind: 'ended'; by: 'supervisor' | 'watcher'; isClean: boolean; isSilent: boolean };

/** Random for each run; hexadecimal. */
export interface FrameSecrets {
  /**
   * Begins every frame. It is an argument of the launcher, which also writes it to streams that the program may read, so it
   * proves nothing.
   */
  marker: string;
  /** Follows the marker in the last frame. Only the supervisor has it, from before the program starts. */
  supervisorProof: string;
  /** The same for the watcher where there is no supervisor. All processes of the account can read it. */
  watcherProof: string;
}

/** What the host reports about the processes and files of a run. */
export type HostReport =
  /** The supervisor was the parent of all processes, and none is left. */
  | 'proven'
  /** There is no supervisor. A search found none, but it does not find a process that dropped all marks of the run. */
  | 'searched'
  /** Some may be left. */
  | 'unknown';

/** An event on a job's channel, in the order of arrival. */
export type SshSessionEvent = { type: 'started' } | { type: 'output'; stream: OutputStream; data: Buffer };

/** How a job's channel ended. */
export interface SshSessionResult {
  /** The launcher reported that it runs. Before that, the host receives nothing of the job. */
  isReady: boolean;
  /** Undefined while the launcher may still start, and when the channel has closed without a reason. */
  startProblem: ShellStartProblem | undefined;
  isStarted: boolean;
  /** Stated before the program started, so that the program cannot state it; undefined until then. */
  supervision: Supervision | undefined;
  refusal: Extract<Frame, { kind: 'refused' }> | undefined;
  /** As the server reported it; undefined when it did not. */
  status: { code: number | null; signal: string | null } | undefined;
  /** Undefined when the watcher did not report. */
  report: HostReport | undefined;
  /** The host reported that it ended the program, since it received no heartbeat for 15 s. */
  isSilent: boolean;
}

export interface SshSession {
  /**
   * Waits for the next event; undefined when the channel has closed and all events were read.
   * @throws WatcherTimeoutError when no event arrives for 8 s after {@link terminate}.
   */
  next(): Promise<SshSessionEvent | undefined>;
  /** Ends the lease: the host kills the processes of the run, checks that none is left, and reports. */
  terminate(): void;
  result(): SshSessionResult;
  /** Closes the channel at once. */
  close(): void;
}

/** The watcher did not report in time. */
export class WatcherTimeoutError extends Error {
  override readonly name = 'WatcherTimeoutError';
}

const HEARTBEAT_MS = 5_000;
/** Queued output at which the channel's window is paused; up to 2 MiB can still arrive. */
const MAX_QUEUED_BYTES = 256 * 1024;
const WATCHER_TIMEOUT_MS = 8_000;

/** Takes over a channel on which the launcher was started, and sends the job when the launcher is ready. */
export function openSshSession(channel: ClientChannel, secrets: FrameSecrets, input: Buffer): SshSession {
  const queue: SshSessionEvent[] = [];
  const state: SshSessionResult = {
    ...{ isReady: false, startProblem: undefined, isStarted: false, supervision: undefined },
    ...{ refusal: undefined, status: undefined, report: undefined, isSilent: false },
  };
  let queuedBytes = 0;
  let isPaused = false;
  let openStreams = 2;
  /** Epoch of {@link terminate} by the monotonic clock, in ms. */
  let terminatedAtMs: number | undefined;
  let isClosed = false;
  let heartbeat: NodeJS.Timeout | undefined;
  let wake: () => void = () => undefined;
  const shellStart = watchShellStart({
    marker: secrets.marker,
    probe: (line) => channel.write(line),
    endInput: () => channel.end(),
    fail: close,
  });

  function onFrame(frame: Frame): void {
    if (frame.kind === 'ended') {
      readReport(frame);
      return;
    }
    // After the start the program may have read the marker.
    if (state.isStarted) return;
    if (frame.kind === 'ready') sendJob();
    else if (frame.kind === 'refused') state.refusal = frame;
    else {
      state.isStarted = true;
      // Another process of the account can have written it before the start.
      state.refusal = undefined;
      state.supervision = frame.supervision;
      queue.push({ type: 'started' });
    }
  }

  function readReport({ by, isClean, isSilent }: Extract<Frame, { kind: 'ended' }>): void {
    if ((by === 'supervisor') !== (state.supervision === 'supervisor')) return;
    state.report = !isClean ? 'unknown' : by === 'supervisor' ? 'proven' : 'searched';
    state.isSilent = isSilent;
  }

  function sendJob(): void {
    if (state.isReady || terminatedAtMs !== undefined) return;
    state.isReady = true;
    shellStart.close();
    channel.write(input);
    heartbeat = setInterval(() => channel.write('.'), HEARTBEAT_MS);
  }

  function enqueueOutput(stream: OutputStream, data: Buffer): void {
    if (data.length === 0) return;
    queuedBytes += data.length;
    queue.push({ type: 'output', stream, data });
    if (isPaused || queuedBytes <= MAX_QUEUED_BYTES) return;
    isPaused = true;
    pauseChannelWindow(channel);
  }

  function dequeue(): SshSessionEvent | undefined {
    const event = queue.shift();
    if (event?.type === 'output') queuedBytes -= event.data.length;
    if (isPaused && queuedBytes <= MAX_QUEUED_BYTES / 2) {
      isPaused = false;
      resumeChannelWindow(channel);
    }
    return event;
  }

  function readStream(stream: OutputStream): void {
    const source = stream === 'stdout' ? channel : channel.stderr;
    const frames = createFrameReader(secrets);
    source.on('data', (chunk: Buffer) => {
      if (isClosed) return;
      for (const item of frames.read(chunk)) {
        if (Buffer.isBuffer(item)) enqueueOutput(stream, item);
        else onFrame(item);
      }
      if (!state.isStarted) shellStart.read(chunk);
      wake();
    });
    source.once('close', () => {
      enqueueOutput(stream, frames.flush());
      openStreams -= 1;
      if (openStreams === 0) clearTimers();
      wake();
    });
  }

  function clearTimers(): void {
    shellStart.close();
    clearInterval(heartbeat);
  }

  function terminate(): void {
    if (terminatedAtMs !== undefined) return;
    terminatedAtMs = performance.now();
    clearTimers();
    channel.end();
    wake();
  }

  function close(): void {
    isClosed = true;
    terminatedAtMs ??= performance.now();
    clearTimers();
    discardChannel(channel);
    wake();
  }

  channel.on('error', () => undefined);
  channel.once('exit', (code: number | null, signal?: string) => {
    state.status = { code, signal: signal ?? null };
    terminate();
  });
  readStream('stdout');
  readStream('stderr');

  return {
    async next() {
      const calledAtMs = performance.now();
      for (;;) {
        const event = dequeue();
        if (event !== undefined) return event;
        if (openStreams === 0 || isClosed) return undefined;
        await new Promise<void>((resolve, reject) => {
          // Counts only while a caller waits here: a slow reader also pauses the channel. Data without an event, such as a
          // part of a frame, does not count as a report.
          const timeout =
            terminatedAtMs === undefined
              ? undefined
              : setTimeout(
                  () => reject(new WatcherTimeoutError('the watcher did not report')),
                  Math.max(calledAtMs, terminatedAtMs) + WATCHER_TIMEOUT_MS - performance.now(),
                );
          wake = () => {
            clearTimeout(timeout);
            resolve();
          };
        });
      }
    },
    terminate,
    result: () => ({ ...state, startProblem: shellStart.problem() }),
    close,
  };
}

/**
 * Separates frames and output of one stream of a channel. Output before the start of the program is dropped.
 */
export function createFrameReader(secrets: FrameSecrets): MarkerReader<Frame> {
  const reader = createMarkerReader(Buffer.from(`\x1e${secrets.marker}`), (text) =>
    parseFrame(text, secrets),
  );
  let isStarted = false;
  return {
    read: (chunk) =>
      reader.read(chunk).filter((item) => {
        if (Buffer.isBuffer(item)) return isStarted;
        isStarted ||= item.kind === 'started';
        return true;
      }),
    flush() {
      const rest = reader.flush();
      return isStarted ? rest : Buffer.alloc(0);
    },
  };
}

function parseFrame(text: string, secrets: FrameSecrets): Frame | undefined {
  if (text === 'R') return { kind: 'ready' };
  const supervision = SUPERVISIONS.get(text);
  if (supervision !== undefined) return { kind: 'started', supervision };
  const refused = /^E([VU])([a-z]+)((?:,[a-z/]+)*)$/.exec(text);
  if (refused !== null) {
    const [, state, reason = '', missing = ''] = refused;
    return { kind: 'refused', reason, missing: missing.split(',').slice(1), isClean: state === 'V' };
  }
  const [, proof, state, silent] = /^([0-9a-f]+)([VU])(L?)$/.exec(text) ?? [];
  if (proof !== secrets.supervisorProof && proof !== secrets.watcherProof) return undefined;
  const by = proof === secrets.supervisorProof ? 'supervisor' : 'watcher';
  return { kind: 'ended', by, isClean: state === 'V', isSilent: silent === 'L' };
}

const SUPERVISIONS: ReadonlyMap<string, Supervision> = new Map([
  ['S', 'supervisor'],
  ['N', 'search'],
  ['G', 'group'],
]);
