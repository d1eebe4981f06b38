import type { ClientChannel } from 'ssh2';
import { discardChannel } from './discard-channel.ts';

/** A program on a server that must not outlive its channel. */
export interface RemoteProgram {
  readonly channel: ClientChannel;
  /**
   * Kills the program, with its process group, and closes its channel. The end of its input is not enough: it may wait
   * for another peer, as `docker system dial-stdio` waits for the engine.
   * Resolves when the server has reported the exit, or after 1 s. Servers that know no signals report none.
   */
  end(): Promise<void>;
}

/** For the report of the exit. */
const MAX_END_MS = 1_000;
/** OpenSSH drops a signal that arrives before the process has become the leader of its group. */
const REPEAT_SIGNAL_MS = 50;

/** Call it when the channel opens, before it can report the exit. */
function createRemoteProgram(channel: ClientChannel): RemoteProgram {
  const { promise: exited, resolve: setExited } = Promise.withResolvers<undefined>();
  let hasExited = false;
  for (const event of ['exit', 'close'])
    channel.once(event, () => {
      hasExited = true;
      setExited(undefined);
    });

  async function kill(): Promise<void> {
    sendKillSignal(channel);
    const repeated = setInterval(() => sendKillSignal(channel), REPEAT_SIGNAL_MS);
    const timeout = setTimeout(setExited, MAX_END_MS, undefined);
    // The exit is reported after the output, which must not fill the window.
    channel.on('error', () => undefined).resume();
    channel.stderr.resume();
    await exited;
    clearInterval(repeated);
    clearTimeout(timeout);
    discardChannel(channel);
  }

  let ending: Promise<void> | undefined;
  return {
    channel,
    end() {
      if (hasExited) discardChannel(channel);
      else ending ??= kill();
      return ending ?? Promise.resolve();
    },
  };
}

/** The programs of a connection. */
export interface ProgramSet {
  isEmpty(): boolean;
  /** Call it before the channel of a program is opened, so that {@link end} waits for it. */
  beginStart(): ProgramStart;
  /** Ends all programs, also those that are just starting. The signals of the others are sent at once. */
  end(): Promise<void>;
}

export interface ProgramStart {
  /** @param channel undefined when the program was not started. */
  finish(channel: ClientChannel | undefined): void;
  /** @throws Error when the program was not started. */
  getProgram(): RemoteProgram;
}

export function createProgramSet(): ProgramSet {
  const programs = new Set<RemoteProgram>();
  const starts = new Set<Promise<undefined>>();
  const endStarted = () => Promise.all(Array.from(programs, (program) => program.end()));

  return {
    isEmpty: () => programs.size + starts.size === 0,
    beginStart() {
      const { promise, resolve } = Promise.withResolvers<undefined>();
      starts.add(promise);
      let program: RemoteProgram | undefined;
      return {
        finish(channel) {
          starts.delete(promise);
          if (channel !== undefined) {
            const started = createRemoteProgram(channel);
            programs.add(started);
            channel.once('close', () => programs.delete(started));
            program = started;
          }
          resolve(undefined);
        },
        getProgram() {
          if (program === undefined) throw new Error('the program was not started');
          return program;
        },
      };
    },
    async end() {
      await endStarted();
      while (starts.size > 0) await Promise.all(starts);
      await endStarted();
    },
  };
}

/** Private fields of ssh2's channel: its public `signal` sends nothing after the end of the input. */
interface ChannelProtocol {
  outgoing: { id: number; state: string };
  _client: { _protocol: { signal(channel: number, name: string): void } };
}

/** Not TERM, which programs can catch. */
function sendKillSignal(channel: ClientChannel): void {
  const { outgoing, _client } = channel as unknown as ChannelProtocol;
  if (outgoing.state === 'open' || outgoing.state === 'eof') _client._protocol.signal(outgoing.id, 'KILL');
}
