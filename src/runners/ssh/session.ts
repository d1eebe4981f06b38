import type { ClientChannel } from 'ssh2';
import { holdBack, letGo } from '../../lib/ssh/back-pressure.ts';
import type { Stream } from '../runner.ts';
import { createFrameReader, type Frame } from './frames.ts';

/** What happens on a job's channel, in the order of arrival. */
export type SessionEvent = { type: 'started' } | { type: 'output'; stream: Stream; data: Buffer };

/** How a job's channel ended. */
export interface SessionEnd {
  isStarted: boolean;
  refusal: Extract<Frame, { kind: 'refused' }> | undefined;
  /** As the server reported it; undefined when it did not. */
  status: { code: number | null; signal: string | null } | undefined;
  /** What the watcher saw; undefined when nothing was heard of it. */
  isClean: boolean | undefined;
}

export interface Session {
  /**
   * The next event; undefined when the channel has closed and all was read.
   * @throws SilenceError when nothing came for a while although {@link finish} was called.
   */
  next(): Promise<SessionEvent | undefined>;
  /** Ends the lease: whatever runs is killed, looked for and reported. */
  finish(): void;
  end(): SessionEnd;
  /** Closes the channel, whatever is under way. */
  discard(): void;
}

/** The watcher has said nothing for too long. */
export class SilenceError extends Error {
  override readonly name = 'SilenceError';
}

const HEARTBEAT_MS = 5_000;
/** What may wait for a reader before the server is held back; a window of 2 MiB may follow. */
const MAX_WAITING_BYTES = 256 * 1024;
/** What an account's shell may say before the launcher does. */
const MAX_NOISE_BYTES = 64 * 1024;
const SILENCE_MS = 8_000;

/** Takes over a channel on which the launcher was started, and sends it the job. */
export function openSession(channel: ClientChannel, mark: string, input: Buffer): Session {
  const waiting: SessionEvent[] = [];
  const state: SessionEnd = { isStarted: false, refusal: undefined, status: undefined, isClean: undefined };
  let waitingBytes = 0;
  let isHeld = false;
  let noiseBytes = 0;
  let openStreams = 2;
  let isFinishing = false;
  let wake: () => void = () => undefined;

  function onFrame(frame: Frame): void {
    if (frame.kind === 'refused') state.refusal = frame;
    if (frame.kind === 'ended') state.isClean = frame.isClean;
    if (frame.kind !== 'started' || state.isStarted) return;
    state.isStarted = true;
    waiting.push({ type: 'started' });
  }

  function add(stream: Stream, data: Buffer): void {
    if (data.length === 0) return;
    waitingBytes += data.length;
    waiting.push({ type: 'output', stream, data });
    if (isHeld || waitingBytes <= MAX_WAITING_BYTES) return;
    isHeld = true;
    holdBack(channel);
  }

  function take(): SessionEvent | undefined {
    const event = waiting.shift();
    if (event?.type === 'output') waitingBytes -= event.data.length;
    if (isHeld && waitingBytes <= MAX_WAITING_BYTES / 2) {
      isHeld = false;
      letGo(channel);
    }
    return event;
  }

  function follow(stream: Stream): void {
    const source = stream === 'stdout' ? channel : channel.stderr;
    const frames = createFrameReader(mark);
    source.on('data', (chunk: Buffer) => {
      const found = frames.read(chunk);
      found.frames.forEach(onFrame);
      add(stream, found.output);
      if (!state.isStarted) noiseBytes += chunk.length;
      if (noiseBytes > MAX_NOISE_BYTES) discard();
      wake();
    });
    source.once('close', () => {
      add(stream, frames.rest());
      openStreams -= 1;
      if (openStreams === 0) clearInterval(heart);
      wake();
    });
  }

  function finish(): void {
    if (isFinishing) return;
    isFinishing = true;
    clearInterval(heart);
    channel.end();
    wake();
  }

  function discard(): void {
    isFinishing = true;
    clearInterval(heart);
    channel.close();
  }

  const heart = setInterval(() => channel.write('.'), HEARTBEAT_MS);
  channel.on('error', () => undefined);
  channel.once('exit', (code: number | null, signal?: string) => {
    state.status = { code, signal: signal ?? null };
    finish();
  });
  follow('stdout');
  follow('stderr');
  channel.write(input);

  return {
    async next() {
      for (;;) {
        const event = take();
        if (event !== undefined) return event;
        if (openStreams === 0) return undefined;
        await new Promise<void>((resolve, reject) => {
          // Only while somebody waits here: a reader who holds the channel back is no silence.
          const silence = isFinishing
            ? setTimeout(() => reject(new SilenceError('nothing was heard')), SILENCE_MS)
            : undefined;
          wake = () => {
            clearTimeout(silence);
            resolve();
          };
        });
      }
    },
    finish,
    end: () => state,
    discard,
  };
}
