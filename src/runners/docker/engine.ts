import type { Duplex, Readable } from 'node:stream';
import { z } from 'zod';
import {
  createBoundedHttpClient,
  readLines,
  readText,
  type BoundedHttpClient,
  type BoundedRequest,
  type BoundedResponse,
} from '../../lib/net/bounded-http.ts';
import { AppError } from '../../lib/errors.ts';
import { parseJson } from '../../lib/json.ts';
import type { Connector } from '../../lib/net/tls-connector.ts';
import type { TargetServer } from '../runner.ts';
import { toEngineConnection, type DockerConfig } from './config.ts';
import type { ContainerSpec } from './containers.ts';
import { createEngineConnector, type EngineDeps } from './engine-connector.ts';
import { EngineResponseError } from './errors.ts';

/**
 * Client for the part of the Engine API that is used, over connections of the dialer or of SSH only. Paths
 * have no version: engines from 20.10 on support different versions, but these calls are the same in all of
 * them. The engine is not trusted: every response is bounded in size and time.
 *
 * Every method throws EngineResponseError; AppError `upstream_unreachable`, `upstream_timeout`,
 * `upstream_malformed`, `endpoint_forbidden`; SshError; or the reason of a signal.
 */
export interface Engine {
  ping(signal?: AbortSignal): Promise<void>;
  version(signal?: AbortSignal): Promise<{ os: string }>;
  info(signal?: AbortSignal): Promise<EngineInfo>;
  /** Progress lines as JSON. */
  pull(image: string, signal: AbortSignal): AsyncGenerator<string, void>;
  /** After an abort, the engine may still create the container. */
  create(name: string, spec: ContainerSpec, signal: AbortSignal): Promise<CreatedContainer>;
  /** The signal does not end the stream. */
  attach(id: string, signal: AbortSignal): Promise<Duplex>;
  /**
   * Resolves when the engine has begun to wait for the container's exit. `exitCode` of the result resolves at
   * that exit; `signal` does not end it.
   */
  wait(id: string, condition: 'next-exit' | 'not-running', signal?: AbortSignal): Promise<ExitWait>;
  start(id: string, signal: AbortSignal): Promise<void>;
  kill(id: string): Promise<void>;
  inspect(id: string, signal?: AbortSignal): Promise<InspectedContainer | undefined>;
  /** Kills and removes the container with its anonymous volumes. Does nothing if it does not exist. */
  remove(id: string, signal?: AbortSignal): Promise<void>;
  rename(id: string, name: string, signal: AbortSignal): Promise<void>;
  /** Running and stopped containers, at most 100. */
  list(which: ContainerFilter, signal?: AbortSignal): Promise<ListedContainer[]>;
  /** Closes idle connections now and busy ones when they become idle. */
  readonly closeWhenIdle: () => void;
  readonly close: () => void;
}

/** Matches containers with all these labels and a name that contains `name`. */
export interface ContainerFilter {
  labels: Readonly<Record<string, string>>;
  name?: string;
}

export interface ExitWait {
  readonly exitCode: Promise<number>;
  stop(): void;
}

const CALL_MS = 20_000;
/** A busy engine may be slow to create, start and remove a container. */
const SLOW_CALL_MS = 60_000;
const MAX_RESPONSE_BYTES = 2 * 1024 * 1024;
const MAX_LINE_BYTES = 64 * 1024;
const MAX_ERROR_TEXT = 2_048;
const MAX_WARNINGS = 64;
/** Default port, which `Host` omits. */
const HTTPS_PORT = 443;

const containerId = z.string().regex(/^[0-9a-f]{12,64}$/);
const versionResponse = z.object({ Os: z.string().max(32) }).transform(({ Os }) => ({ os: Os }));
const infoResponse = z
  .object({ MemoryLimit: z.boolean(), CpuCfsQuota: z.boolean(), PidsLimit: z.boolean() })
  .transform((info) => ({
    canLimit: { memoryBytes: info.MemoryLimit, cpus: info.CpuCfsQuota, pids: info.PidsLimit },
  }));
export type EngineInfo = z.infer<typeof infoResponse>;
const createResponse = z
  .object({ Id: containerId, Warnings: z.array(z.string().max(MAX_ERROR_TEXT)).max(MAX_WARNINGS).nullish() })
  .transform(({ Id, Warnings }) => ({ id: Id, warnings: Warnings ?? [] }));
/** Warnings name the limits that the container lacks: see `assertLimitsKept`. */
export type CreatedContainer = z.infer<typeof createResponse>;
const waitResponse = z.object({
  StatusCode: z.number().int().min(0).max(255),
  Error: z.object({}).nullish(),
});
const inspectResponse = z
  .object({
    State: z.object({ Running: z.boolean(), OOMKilled: z.boolean() }),
  })
  .transform(({ State }) => ({ isRunning: State.Running, wasOomKilled: State.OOMKilled }));
export type InspectedContainer = z.infer<typeof inspectResponse>;
const listResponse = z.array(
  z
    .object({ Id: containerId, State: z.string().max(32), Created: z.number() })
    .transform(({ Id, State, Created }) => ({ id: Id, state: State, createdMs: Created * 1_000 })),
);
export type ListedContainer = z.infer<typeof listResponse>[number];

/** Connects at the first call. @throws Error for an invalid client key or certificate. */
export function createEngine(target: TargetServer<DockerConfig>, deps: EngineDeps): Engine {
  const route = toEngineConnection(target.config);
  const connect = createEngineConnector(target, deps);
  const authority = route.kind === 'tls' ? route : { host: 'docker', port: 443 };
  return createEngineWithConnector(connect, authority);
}

/** Like {@link createEngine}, with another connector. */
export function createEngineWithConnector(
  connect: Connector,
  authority: { host: string; port: number },
): Engine {
  const { host, port } = authority;
  const http = createBoundedHttpClient(connect, { host: port === HTTPS_PORT ? host : `${host}:${port}` });
  const lifetime = { closeWhenIdle: http.closeWhenIdle, close: () => void http.close() };
  const calls = createCalls(http);
  return { ...lifetime, ...hostCalls(calls), ...streamCalls(http), ...containerCalls(calls) };
}

interface Calls {
  /** Returns status and text of a response. @throws EngineResponseError for a status that is not accepted. */
  readonly call: (
    request: BoundedRequest,
    accepted: readonly number[],
  ) => Promise<{ status: number; text: string }>;
  /** Sends a request and parses the response. */
  readonly read: <T>(schema: z.ZodType<T>, request: Omit<BoundedRequest, 'timeoutMs'>) => Promise<T>;
}

function createCalls(http: BoundedHttpClient): Calls {
  const call: Calls['call'] = async (request, accepted) => {
    const response = await http.requestText({ ...request, maxBytes: MAX_RESPONSE_BYTES });
    if (!accepted.includes(response.status))
      throw new EngineResponseError(response.status, response.text.slice(0, MAX_ERROR_TEXT));
    return response;
  };
  return {
    call,
    async read(schema, request) {
      return parse(schema, (await call({ ...request, timeoutMs: CALL_MS }, [200])).text);
    },
  };
}

function hostCalls({ call, read }: Calls): Pick<Engine, 'ping' | 'version' | 'info'> {
  return {
    async ping(signal) {
      await call({ ...get('/_ping', signal), timeoutMs: CALL_MS }, [200]);
    },
    version: (signal) => read(versionResponse, get('/version', signal)),
    info: (signal) => read(infoResponse, get('/info', signal)),
  };
}

/** Calls with streamed responses. */
function streamCalls(http: BoundedHttpClient): Pick<Engine, 'pull' | 'attach' | 'wait'> {
  return {
    async *pull(image, signal) {
      const path = `/images/create?${new URLSearchParams(splitImage(image)).toString()}`;
      const response = await http.requestStream({ ...post(path, signal), timeoutMs: SLOW_CALL_MS });
      if (response.status !== 200) throw await toResponseError(response);
      yield* readLines(response.body, { maxLineBytes: MAX_LINE_BYTES }, signal);
    },
    async attach(id, signal) {
      const path = `/containers/${id}/attach?stream=1&stdin=1&stdout=1&stderr=1`;
      const result = await http.upgrade({ ...post(path, signal), timeoutMs: CALL_MS });
      if ('status' in result) throw await toResponseError(result);
      return result;
    },
    async wait(id, condition, signal) {
      const path = `/containers/${id}/wait?condition=${condition}`;
      const response = await http.requestStream({ ...post(path, signal), timeoutMs: CALL_MS });
      if (response.status !== 200) throw await toResponseError(response);
      return readExitWait(response.body);
    },
  };
}

type ContainerCalls = Pick<Engine, 'create' | 'start' | 'kill' | 'inspect' | 'remove' | 'rename' | 'list'>;

function containerCalls({ call, read }: Calls): ContainerCalls {
  return {
    async create(name, spec, signal) {
      const path = `/containers/create?name=${encodeURIComponent(name)}`;
      const { text } = await call({ ...post(path, signal), body: spec, timeoutMs: SLOW_CALL_MS }, [201]);
      return parse(createResponse, text);
    },
    async start(id, signal) {
      await call({ ...post(`/containers/${id}/start`, signal), timeoutMs: SLOW_CALL_MS }, [204, 304]);
    },
    async kill(id) {
      // 409: the container has already ended.
      await call({ ...post(`/containers/${id}/kill`), timeoutMs: CALL_MS }, [204, 409]);
    },
    async inspect(id, signal) {
      const request = { ...get(`/containers/${encodeURIComponent(id)}/json`, signal), timeoutMs: CALL_MS };
      const { status, text } = await call(request, [200, 404]);
      return status === 404 ? undefined : parse(inspectResponse, text);
    },
    async remove(id, signal) {
      const path = `/containers/${encodeURIComponent(id)}?force=1&v=1`;
      // 409: another removal is in progress. The caller checks the result with `inspect`.
      await call({ ...toRequest('DELETE', path, signal), timeoutMs: SLOW_CALL_MS }, [204, 404, 409]);
    },
    async rename(id, name, signal) {
      const path = `/containers/${id}/rename?name=${encodeURIComponent(name)}`;
      await call({ ...post(path, signal), timeoutMs: CALL_MS }, [204]);
    },
    list({ labels, name }, signal) {
      const label = Object.entries(labels).map((pair) => pair.join('='));
      const filters = encodeURIComponent(
        JSON.stringify({ label, ...(name !== undefined && { name: [name] }) }),
      );
      return read(listResponse, get(`/containers/json?all=1&limit=100&filters=${filters}`, signal));
    },
  };
}

function toRequest(method: BoundedRequest['method'], path: string, signal?: AbortSignal) {
  return { method, path, ...(signal === undefined ? {} : { signal }) };
}

const get = toRequest.bind(null, 'GET');
const post = toRequest.bind(null, 'POST');

/** The headers arrive at once, the body when the container has ended, possibly hours later. */
function readExitWait(body: Readable): ExitWait {
  const signal = new AbortController().signal;
  const exitCode = readText(body, MAX_RESPONSE_BYTES, signal).then((text) => {
    const response = parse(waitResponse, text);
    if (response.Error != null) throw new EngineResponseError(500, 'wait');
    return response.StatusCode;
  });
  // The caller may never read the code.
  exitCode.catch(() => undefined);
  return { exitCode, stop: () => body.destroy() };
}

async function toResponseError(response: BoundedResponse): Promise<EngineResponseError> {
  const text = await readText(response.body, MAX_RESPONSE_BYTES, AbortSignal.timeout(CALL_MS));
  return new EngineResponseError(response.status, text.slice(0, MAX_ERROR_TEXT));
}

function parse<T>(schema: z.ZodType<T>, text: string): T {
  try {
    return schema.parse(parseJson(text));
  } catch (cause) {
    throw new AppError('upstream_malformed', 'The engine sent a response in an invalid format.', { cause });
  }
}

/** Without a tag the engine would pull all tags. */
function splitImage(image: string): { fromImage: string; tag: string } {
  const [name = image, digest] = image.split('@');
  const [, path = name, tag = 'latest'] = /^(.*?)(?::([^:/]+))?$/.exec(name) ?? [];
  return { fromImage: path, tag: digest ?? tag };
}
