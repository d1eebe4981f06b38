import type { KubeConfig } from '@kubernetes/client-node';
import { PassThrough } from 'node:stream';
import { z } from 'zod';
import { parseJson } from '../../lib/json.ts';
import type { OutputStream } from '../runner.ts';
import type { ClusterApi } from './api.ts';
import { toClusterError, ClusterError } from './errors.ts';
import { CONTAINER_NAME } from './manifest.ts';

export interface ExecOutput {
  stream: OutputStream;
  data: Buffer;
}

/** A command under way in a pod. */
export interface Exec {
  /** Both streams in the order of their arrival. Whoever does not read holds the command back. Ends with it. */
  output: () => AsyncGenerator<ExecOutput, void>;
  /** Once the output has ended: the exit code, or undefined where nobody told. */
  code: () => number | undefined;
  /** Ends the connection; the command goes on. */
  close: () => void;
}

/** `ws`, as far as it is used: the client library's own type for it is not installed. */
interface ExecSocket {
  readonly protocol: string;
  pause(): void;
  resume(): void;
  ping(): void;
  send(data: Uint8Array, done: (error?: Error | null) => void): void;
  terminate(): void;
  on(event: 'close' | 'error', listener: () => void): void;
}

/** Channels of the remote command protocol (Kubernetes, KEP-4006); the first byte of every message. */
const STDIN = 0;
const STREAMS: readonly (OutputStream | undefined)[] = [undefined, 'stdout', 'stderr'];
const STATUS = 3;
const CLOSE = 255;
/** The most that a program can exit with. */
const MAX_EXIT_CODE = 255;
/** The first version that can say that the input has ended. */
const EXEC_PROTOCOL = 'v5.channel.k8s.io';

const HANDSHAKE_TIMEOUT_MS = 15_000;
/** Between a server's goodbye and its going. */
const CLOSE_TIMEOUT_MS = 2_000;
/** API servers send 32 KB at a time. */
const MAX_MESSAGE_BYTES = 1024 * 1024;
const INPUT_CHUNK_BYTES = 32 * 1024;
/** Output that waits for its reader: above the first the connection is paused, below the second it goes on. */
const PAUSE_BYTES = 256 * 1024;
const RESUME_BYTES = 64 * 1024;
/** What a message costs beside its bytes: a cluster may send them one by one. */
const MESSAGE_OVERHEAD_BYTES = 128;
/** What lies between often forgets connections that are silent for a minute. */
const PING_INTERVAL_MS = 15_000;

/** `metav1.Status`, which ends every command. */
const Status = z.object({
  status: z.string(),
  reason: z.string().optional(),
  details: z
    .object({ causes: z.array(z.object({ reason: z.string().optional(), message: z.string().optional() })) })
    .optional(),
});

/**
 * Starts a command in a running pod. The client library speaks the protocol, over a socket that was dialled here,
 * without compression and with small messages, so that no cluster can fill the memory.
 * @param command sent as parts of an address: nothing secret.
 * @throws ClusterError, or the reason of `signal`.
 */
export async function startExec(
  api: ClusterApi,
  pod: string,
  command: readonly string[],
  input: Buffer,
  signal: AbortSignal,
): Promise<Exec> {
  const messages = createMessageQueue();
  const path = execPath(api.access.namespace, pod, command);
  const socket = await openSocket(api, path, (channel, data) => messages.receive(channel, data), signal);
  messages.attach(socket);
  const pings = setInterval(() => socket.ping(), PING_INTERVAL_MS);
  socket.on('close', () => {
    clearInterval(pings);
    messages.end();
  });
  // A message that breaks the rules: nothing after it is of use, nor is a goodbye.
  socket.on('error', () => {
    socket.terminate();
  });
  // Beside the output: a command that writes before it has read everything would otherwise wait for us for ever.
  sendInput(socket, input).catch(() => {
    socket.terminate();
  });
  return { output: () => messages.output(), code: () => messages.code(), close: () => socket.terminate() };
}

function execPath(namespace: string, pod: string, command: readonly string[]): string {
  const query = new URLSearchParams({
    container: CONTAINER_NAME,
    stdin: 'true',
    stdout: 'true',
    stderr: 'true',
  });
  for (const word of command) query.append('command', word);
  return `/api/v1/namespaces/${namespace}/pods/${pod}/exec?${query.toString()}`;
}

async function openSocket(
  api: ClusterApi,
  path: string,
  receive: (channel: number, data: Buffer) => void,
  signal: AbortSignal,
): Promise<ExecSocket> {
  const { WebSocketHandler } = await import('@kubernetes/client-node/dist/web-socket-handler.js');
  try {
    const transport = await api.connect(signal);
    const onAbort = () => void transport.destroy();
    signal.addEventListener('abort', onAbort);
    const handler = new WebSocketHandler(toLibraryConfig(api, transport), undefined, createUnusedStreams());
    const opening = handler.connect(path, null, (channel, data) => {
      receive(channel, data);
      return true;
    });
    const socket = (await opening.finally(() => {
      signal.removeEventListener('abort', onAbort);
    })) as unknown as ExecSocket;
    if (socket.protocol === EXEC_PROTOCOL) return socket;
    socket.terminate();
    throw new ClusterError('malformed', 'The cluster is too old: running commands needs Kubernetes 1.30.');
  } catch (error) {
    signal.throwIfAborted();
    throw toHandshakeError(error);
  }
}

/** The two members that the library's handler asks for. Its own configuration would read files and the environment. */
function toLibraryConfig({ access }: ClusterApi, transport: unknown): KubeConfig {
  const config = {
    getCurrentCluster: () => ({ server: access.server.href.replace(/\/$/, '') }),
    applyToHTTPSOptions(options: object) {
      Object.assign(options, {
        createConnection: () => transport,
        headers: access.token === null ? {} : { authorization: `Bearer ${access.token}` },
        followRedirects: false,
        handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
        closeTimeout: CLOSE_TIMEOUT_MS,
        maxPayload: MAX_MESSAGE_BYTES,
        perMessageDeflate: false,
      });
      return Promise.resolve();
    },
  };
  return config as unknown as KubeConfig;
}

/** The handler closes streams by itself, those of this process unless it has others. */
function createUnusedStreams() {
  return { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough() };
}

/** `ws` fails with an event, whose words hold the status. */
function toHandshakeError(event: unknown): ClusterError {
  const { error, message } = event as { error?: unknown; message?: unknown };
  if (typeof message === 'string' && message.includes('server response: 403'))
    return new ClusterError(
      'forbidden',
      'The account may not run commands in pods: it needs get and create on pods/exec.',
    );
  return toClusterError(error ?? event);
}

async function sendInput(socket: ExecSocket, input: Buffer): Promise<void> {
  for (let at = 0; at < input.length; at += INPUT_CHUNK_BYTES)
    await send(socket, Buffer.concat([Buffer.of(STDIN), input.subarray(at, at + INPUT_CHUNK_BYTES)]));
  await send(socket, Buffer.of(CLOSE, STDIN));
}

function send(socket: ExecSocket, message: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.send(message, (error) => (error ? reject(error) : resolve()));
  });
}

/** Messages of the protocol on their way to the reader, who sets the pace. */
function createMessageQueue() {
  const queued: ExecOutput[] = [];
  let bytes = 0;
  let isPaused = false;
  let hasEnded = false;
  let code: number | undefined;
  let changed = Promise.withResolvers<undefined>();
  let socket: ExecSocket | undefined;

  function applyBackpressure(): void {
    if (!isPaused && bytes > PAUSE_BYTES) {
      isPaused = true;
      socket?.pause();
    } else if (isPaused && bytes < RESUME_BYTES) {
      isPaused = false;
      socket?.resume();
    }
  }

  function end(): void {
    hasEnded = true;
    changed.resolve(undefined);
  }

  return {
    attach(opened: ExecSocket): void {
      socket = opened;
      if (isPaused) socket.pause();
    },
    end,
    receive(channel: number, data: Buffer): void {
      const stream = STREAMS[channel];
      if (stream !== undefined && data.length > 0) {
        queued.push({ stream, data });
        bytes += data.length + MESSAGE_OVERHEAD_BYTES;
        applyBackpressure();
        changed.resolve(undefined);
      } else if (channel === STATUS) {
        code = readExitCode(data);
        end();
      }
    },
    code: () => code,
    async *output(): AsyncGenerator<ExecOutput, void> {
      for (;;) {
        const next = queued.shift();
        if (next !== undefined) {
          bytes -= next.data.length + MESSAGE_OVERHEAD_BYTES;
          applyBackpressure();
          yield next;
        } else if (hasEnded) return;
        else {
          await changed.promise;
          changed = Promise.withResolvers();
        }
      }
    },
  };
}

/** Undefined where the command could not be run, or nobody knows how it ended. */
function readExitCode(data: Buffer): number | undefined {
  const status = Status.safeParse(parseJson(data.toString('utf8'))).data;
  if (status?.status === 'Success') return 0;
  if (status?.reason !== 'NonZeroExitCode') return undefined;
  const cause = status.details?.causes.find(({ reason }) => reason === 'ExitCode');
  const code = /^\d{1,3}$/.test(cause?.message ?? '') ? Number(cause?.message) : undefined;
  return code !== undefined && code <= MAX_EXIT_CODE ? code : undefined;
}
