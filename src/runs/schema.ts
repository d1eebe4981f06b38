import { z } from 'zod';
import { pageOf, PageQuery } from '../http/page.ts';
import { refuseHiddenCharacters } from '../lib/visible-text.ts';
import { LANGUAGES, SERVER_TYPES, type Job, type Limits, type Program } from '../runners/runner.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
/** Limits of a request to start a run. The whole body is limited to 1 MB. */
const MAX = {
  codeBytes: 512 * KIB,
  commandBytes: 64 * KIB,
  files: 100,
  envNames: 100,
  envBytes: 32 * KIB,
  timeoutMs: 3_600_000,
  outputBytes: 1024 * MIB,
} as const;
const DEFAULT_TIMEOUT_MS = 300_000;
const DEFAULT_OUTPUT_BYTES = 10 * MIB;

export const EXIT_CAUSES = [
  'exited',
  'signal',
  'timeout',
  'cancelled',
  'out_of_memory',
  'output_limit',
  'lost',
  'infrastructure',
] as const;
export const CLEANUPS = ['verified', 'unverified'] as const;
export const RUN_STATUSES = ['queued', 'running', 'finished'] as const;

/** Text of at most `maxBytes` bytes, without a zero byte, which no argument or variable can contain. */
function text(maxBytes: number) {
  return z
    .string()
    .refine((value) => Buffer.byteLength(value) <= maxBytes, `must have ${maxBytes} bytes or fewer`)
    .refine((value) => !value.includes('\0'), 'must not contain a zero byte');
}

function wholeNumber(min: number, max: number) {
  const error = `must be a whole number from ${min} to ${max}`;
  return z.number({ error }).int(error).min(min, error).max(max, error);
}

/** A relative path that stays inside its folder. */
const relativePath = text(255)
  .refine((path) => path !== '' && !path.startsWith('/'), 'must be a relative path')
  .refine(
    (path) => path.split('/').every((part) => part !== '' && part !== '.' && part !== '..'),
    'must have no empty parts, no . and no ..',
  )
  .superRefine(refuseHiddenCharacters);

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

const File = z
  .strictObject({
    path: relativePath,
    content: z.string(),
    encoding: z.enum(['utf8', 'base64']).default('utf8'),
  })
  .refine(({ content, encoding }) => encoding === 'utf8' || BASE64.test(content), {
    path: ['content'],
    message: 'must be base64',
  });

const files = z
  .array(File)
  .max(MAX.files, `must have ${MAX.files} entries or fewer`)
  .refine(
    (files) => areDisjoint(files.map(({ path }) => path)),
    'must name each path once, and none inside another',
  );

function areDisjoint(paths: readonly string[]): boolean {
  const taken = new Set(paths);
  const isInside = (path: string) =>
    path.split('/').some((_, at, parts) => at > 0 && taken.has(parts.slice(0, at).join('/')));
  return taken.size === paths.length && !paths.some(isInside);
}

const env = z
  .record(
    z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'must be names of letters, digits and _'),
    text(MAX.envBytes),
  )
  .refine(
    (variables) => Object.keys(variables).length <= MAX.envNames,
    `must have ${MAX.envNames} names or fewer`,
  );

const limits = z.strictObject({
  max_output_bytes: wholeNumber(1, MAX.outputBytes).optional(),
  memory_bytes: wholeNumber(MIB, 2 ** 50).nullish(),
  cpus: z
    .number({ error: 'must be a number from 0.01 to 1024' })
    .min(0.01, 'must be a number from 0.01 to 1024')
    .max(1024, 'must be a number from 0.01 to 1024')
    .nullish(),
  pids: wholeNumber(1, 4_194_304).nullish(),
  network: z.enum(['none', 'any']).nullish(),
});

/** A request to start a run: either a language and its code, or a command. */
export const StartRun = z
  .strictObject({
    language: z.enum(LANGUAGES).optional(),
    code: z
      .string()
      .refine((code) => Buffer.byteLength(code) <= MAX.codeBytes, `must have ${MAX.codeBytes} bytes or fewer`)
      .optional(),
    command: text(MAX.commandBytes).min(1, 'must not be empty').optional(),
    stdin: z.string().nullish(),
    files: files.default([]),
    env: env.default({}),
    workdir: text(4_096)
      .startsWith('/', 'must be an absolute path')
      .superRefine(refuseHiddenCharacters)
      .nullish(),
    timeout_ms: wholeNumber(1, MAX.timeoutMs).default(DEFAULT_TIMEOUT_MS),
    limits: limits.default({}),
    on_disconnect: z.enum(['continue', 'cancel']).default('continue'),
  })
  .refine(
    ({ language, code, command }) =>
      command === undefined
        ? language !== undefined && code !== undefined
        : language === undefined && code === undefined,
    'must have either language and code, or command',
  );
export type StartRun = z.output<typeof StartRun>;

export function toRunProgram({ language, code, command }: StartRun): Program {
  return language !== undefined && code !== undefined ? { language, code } : { command: command ?? '' };
}

/** The job for the runner. */
export function toJob(runId: string, request: StartRun): Job {
  return {
    runId,
    program: toRunProgram(request),
    stdin: request.stdin == null ? null : Buffer.from(request.stdin),
    files: request.files.map(({ path, content, encoding }) => ({
      path,
      content: Buffer.from(content, encoding),
    })),
    env: request.env,
    workdir: request.workdir ?? null,
  };
}

export function toLimits({ timeout_ms: timeoutMs, limits: requested }: StartRun): Limits {
  return {
    timeoutMs,
    maxOutputBytes: requested.max_output_bytes ?? DEFAULT_OUTPUT_BYTES,
    memoryBytes: requested.memory_bytes ?? null,
    cpus: requested.cpus ?? null,
    pids: requested.pids ?? null,
    network: requested.network ?? null,
  };
}

export const RunServerParams = z.object({ id: z.string() });
export const RunParams = z.object({ id: z.string() });

/** `from` is the number of the first event to send. */
export const EventsQuery = z.strictObject({
  from: z.coerce
    .number({ error: 'must be a whole number from 1 on' })
    .int('must be a whole number from 1 on')
    .min(1, 'must be a whole number from 1 on')
    .max(2 ** 31 - 1, 'must be a whole number from 1 on')
    .optional(),
});

function oneOf<const T extends readonly string[]>(values: T) {
  return z.enum(values, `must be one of: ${values.join(', ')}`);
}

/** Filters of the list; all must match. Only finished runs have a cause. */
export const RunsQuery = z.strictObject({
  ...PageQuery.shape,
  server_id: z
    .string()
    .regex(/^[0-9A-Za-z_-]{1,64}$/, 'must be the id of a server')
    .optional(),
  status: oneOf(RUN_STATUSES).optional(),
  language: oneOf([...LANGUAGES, 'command']).optional(),
  cause: oneOf(EXIT_CAUSES).optional(),
});
export type RunsQuery = z.output<typeof RunsQuery>;

const timestamp = z.iso.datetime();

/** A run in a list. */
export const RunView = z.object({
  id: z.string(),
  user_id: z.string(),
  server_id: z.string(),
  server_name: z.string(),
  server_type: z.enum(SERVER_TYPES),
  language: z.enum(LANGUAGES).nullable(),
  code_sha256: z.string(),
  status: z.enum(RUN_STATUSES),
  cause: z.enum(EXIT_CAUSES).nullable(),
  /** The program's exit code. */
  code: z.number().int().nullable(),
  signal: z.string().nullable(),
  cleanup: z.enum(CLEANUPS).nullable(),
  message: z.string().nullable(),
  duration_ms: z.number().int().nullable(),
  /** Counted at the exit; null before. */
  stdout_bytes: z.number().int().nullable(),
  stderr_bytes: z.number().int().nullable(),
  created_at: timestamp,
  started_at: timestamp.nullable(),
  finished_at: timestamp.nullable(),
});
export type RunView = z.output<typeof RunView>;

/** A program as it is stored and shown. */
export const ProgramView = z.union([
  z.object({ language: z.enum(LANGUAGES), code: z.string() }),
  z.object({ command: z.string() }),
]);

/** A run with its program; null when the program does not decrypt. */
export const RunDetails = RunView.extend({ program: ProgramView.nullable() });
export type RunDetails = z.output<typeof RunDetails>;

export const RunPage = pageOf(RunView);
export type RunPage = z.output<typeof RunPage>;

export const ExitView = z.object({
  cause: z.enum(EXIT_CAUSES),
  code: z.number().int().nullable(),
  signal: z.string().nullable(),
  cleanup: z.enum(CLEANUPS),
  message: z.string().nullable(),
  duration_ms: z.number().int(),
});

/** The response of a request that waits for the exit of its run. */
export const RunResult = z.object({
  run_id: z.string(),
  exit: ExitView,
  stdout: z.string(),
  stdout_encoding: z.enum(['utf8', 'base64']),
  stderr: z.string(),
  stderr_encoding: z.enum(['utf8', 'base64']),
  /** True when there was more output than the response contains. */
  truncated: z.boolean(),
});
export type RunResult = z.output<typeof RunResult>;
