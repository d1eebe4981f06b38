import type { KubeConfig } from '@kubernetes/client-node';
import { PassThrough } from 'node:stream';
import { z } from 'zod';
import { parseJson } from '../../lib/json.ts';
import type { OutputStream } from '../runner.ts';
import { MAX_EXIT_CODE } from '../shell.ts';
import type { ClusterApi } from './api.ts';
import { toClusterError, ClusterError } from './errors.ts';
import { CONTAINER_NAME } from './manifest.ts';

export interface ExecOutput {
  stream: OutputStream;
  data: Buffer;
}

/** A running command in a pod. */
export interface Exec {
  /**
   * Both streams in order of arrival, up to the end of the command. A reader that stops reading pauses the
   * command.
   */
  output: () => AsyncGenerator<ExecOutput, void>;
  /** The exit code, after the end of the output. Undefined if the cluster did not report it. */
  code: () => number | undefined;
  /** Closes the connection. The command continues. */
  close: () => void;
}

/** The used part of `ws`. The client library's own type for it is not installed. */
interface ExecSocket {
  readonly protocol: string;
  pause(): void;
  resume(): void;
  ping(): void;
  send(data: Uint8Array, done: (error?: Error | null) => void): void;
  terminate(): void;
  on(event: 'close' | 'error', listener: () => void): void;
}

/** Channels of the remote command protocol (Kubernetes, KEP-4006): the first byte of every message. */
const STDIN = 0;
const STREAMS: readonly (OutputStream | undefined)[] = [undefined, 'stdout', 'stderr'];
const STATUS = 3;
const CLOSE = 255;
/** First protocol version that can signal the end of the input. */
const EXEC_PROTOCOL = 'v5.channel.k8s.io';

const HANDSHAKE_TIMEOUT_MS = 15_000;
/** Maximum time between a close frame and the end of the connection. */
const CLOSE_TIMEOUT_MS = 2_000;
/** API servers send 32 KB at a time. */
const MAX_MESSAGE_BYTES = 1024 * 1024;
const INPUT_CHUNK_BYTES = 32 * 1024;
/** Buffered output. Above PAUSE_BYTES the connection is paused; below RESUME_BYTES it resumes. */
const PAUSE_BYTES = 256 * 1024;
const RESUME_BYTES = 64 * 1024;
/** Memory per message besides its bytes, because a cluster may send single bytes. */
const MESSAGE_OVERHEAD_BYTES = 128;
/** Proxies often drop connections that are idle for a minute. */
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
 * Starts a command in a running pod. The client library implements the protocol, over a socket of the dialer,
 * without compression and with bounded messages, so that a cluster cannot fill the memory.
 * @param command sent in the URL: must not hold secrets.
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
  // After a protocol error, no further message and no close frame is of use.
  socket.on('error', () => {
    socket.terminate();
  });
  // In parallel with the output: a command that writes before it has read all input would otherwise block
  // forever.
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

/**
 * The two members that the library's handler uses. The library's own configuration would read files and
 * environment variables.
 */
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

/** The handler closes its streams, which are those of this process unless others are given. */
function createUnusedStreams() {
  return { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough() };
}

/** `ws` reports a failure as an event with the status in its message. */
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

/** Queue of received output. The connection is paused while the reader is slower. */
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

/** Undefined if the command could not run or its exit code is unknown. */
function readExitCode(data: Buffer): number | undefined {
  const status = Status.safeParse(parseJson(data)).data;
  if (status?.status === 'Success') return 0;
  if (status?.reason !== 'NonZeroExitCode') return undefined;
  const cause = status.details?.causes.find(({ reason }) => reason === 'ExitCode');
  const code = /^\d{1,3}$/.test(cause?.message ?? '') ? Number(cause?.message) : undefined;
  return code !== undefined && code <= MAX_EXIT_CODE ? code : undefined;
}

const MAX_COMMAND_OUTPUT_BYTES = 16 * 1024;

/**
 * Runs a short command in a running pod. @param input by default empty.
 * @returns undefined if it prints too much or its exit code is unknown. @throws what `startExec` throws.
 */
export async function runPodCommand(
  api: ClusterApi,
  pod: string,
  command: readonly string[],
  signal: AbortSignal,
  { input, readStderr }: { input?: Buffer; readStderr?: (data: Buffer) => void } = {},
): Promise<{ code: number; stdout: string } | undefined> {
  const exec = await startExec(api, pod, command, input ?? Buffer.alloc(0), signal);
  signal.addEventListener('abort', exec.close);
  if (signal.aborted) exec.close();
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const { data, stream } of exec.output()) {
      bytes += data.length;
      if (bytes > MAX_COMMAND_OUTPUT_BYTES) return undefined;
      if (stream === 'stdout') chunks.push(data);
      else readStderr?.(data);
    }
  } finally {
    signal.removeEventListener('abort', exec.close);
    exec.close();
  }
  const code = exec.code();
  return code === undefined ? undefined : { code, stdout: Buffer.concat(chunks).toString('utf8') };
}
