import { pino, type DestinationStream, type Logger } from 'pino';
import { createLogStream, type LogStream } from './log-stream.ts';

/**
 * Every member that a log line can have besides level, time, text and `err`. Others are dropped, and a value that is an
 * object as well: a whole request, response, header object or configuration contains credentials. Searching each line
 * for secrets instead would cost more than writing it, and finds known names only. Add a member here when an event needs
 * it; it must not be a secret, a text of a user or a personal datum other than the id of a user.
 */
const LOG_FIELDS = [
  ...[
    'event',
    'reason',
    'code',
    'status',
    'detail',
    'causes',
    'loop',
    'attempt',
    'attempts',
    'rows',
    'count',
  ],
  ...['mode', 'url', 'migrations', 'expected', 'found', 'complaint'],
  ...['request_id', 'client_request_id', 'method', 'route', 'complete', 'duration_ms'],
  ...['user', 'owner', 'provider', 'model', 'byok', 'key_scope', 'key_id', 'endpoint', 'end'],
  ...['upstream_request_id', 'vault_id', 'values', 'saved_by'],
  ...['host', 'port', 'server', 'id', 'name', 'run', 'cause', 'cleanup'],
] as const;

type LogValue = string | number | boolean | null | undefined | readonly string[];

/** The members of one line. Of those that can be objects a serializer chooses the members. */
export type LogFields = Partial<Record<(typeof LOG_FIELDS)[number], LogValue>> & {
  /** An error of any kind. */
  err?: unknown;
  /** Of a key, without any part of it. */
  form?: { length: number; has_known_prefix: boolean; characters: readonly string[] };
};

interface LogMethod {
  (fields: LogFields, text: string): void;
  (text: string): void;
}

/** Writes lines whose members are chosen at each call. */
export interface Log {
  /** Also waits until the line is written. Only before the end of the process. */
  fatal: LogMethod;
  error: LogMethod;
  warn: LogMethod;
  info: LogMethod;
  debug: LogMethod;
  /** @returns a log whose lines have these members too. */
  child(fields: LogFields): Log;
}

/**
 * Creates the process's log: JSON lines with UTC times.
 * @param destination standard output by default.
 */
export function createLog(level: string, destination?: DestinationStream): Log {
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { log: chooseFields },
      serializers: SERIALIZERS,
    },
    destination ?? openStandardOutput(),
  );
  return chooseInChildren(log);
}

/** The library does not apply `formatters` to the members of a child. */
function chooseInChildren(log: Logger): Log {
  const createChild = log.child.bind(log);
  return Object.assign(log, {
    child: (fields: LogFields) => chooseInChildren(createChild(chooseFields(fields))),
  });
}

/** The log of a process whose standard output is its log. */
export function openStandardOutput(): LogStream {
  return createLogStream({
    to: 1,
    onError: ({ message }) => {
      process.stderr.write(
        `The log can no longer be written (${message}). Ops Center keeps running without it.\n`,
      );
    },
  });
}

const SERIALIZERS = {
  err: (error: unknown) => serializeError(error),
  form: ({ length, has_known_prefix, characters }: Required<LogFields>['form']) => ({
    ...{ length, has_known_prefix, characters },
  }),
  causes: (causes: readonly string[]) => causes.map(hideCredentials),
};

const PLAIN_FIELDS: ReadonlySet<string> = new Set(LOG_FIELDS);

/** Also covers calls that the compiler could not check. */
function chooseFields(fields: object): Record<string, unknown> {
  const chosen: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields))
    if (name === 'err' || name === 'form' || (PLAIN_FIELDS.has(name) && isLogValue(value)))
      chosen[name] = value;
  return chosen;
}

function isLogValue(value: unknown): boolean {
  if (typeof value === 'object' && value !== null)
    return Array.isArray(value) && value.every((item) => typeof item === 'string');
  return typeof value !== 'function' && typeof value !== 'symbol';
}

/** Stops at circular causes. */
const MAX_CAUSES = 10;
/** Messages of libraries can quote a whole response. */
const MAX_TEXT_LENGTH = 8_192;

/**
 * Logs name, message, code, stack and causes of an error only. Other properties are not copied, because errors of
 * libraries contain whole requests with credentials.
 */
function serializeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error))
    return { message: typeof error === 'string' ? hideCredentials(error) : typeof error };
  const { code } = error as { code?: unknown };
  return {
    type: error.name,
    message: hideCredentials(error.message),
    ...(typeof code === 'string' ? { code } : {}),
    ...(error.stack === undefined ? {} : { stack: hideCredentials(error.stack) }),
    ...(error.cause === undefined || depth >= MAX_CAUSES
      ? {}
      : { cause: serializeError(error.cause, depth + 1) }),
  };
}

/** What of a message is a credential by its form: in a URL its user and its query, and an `Authorization`. */
function hideCredentials(text: string): string {
  return text
    .slice(0, MAX_TEXT_LENGTH)
    .replace(/\b([a-z][a-z0-9+.-]{0,30}:\/\/)[^\s/?#@]+@/gi, '$1***@')
    .replace(/\b([a-z][a-z0-9+.-]{0,30}:\/\/[^\s?#'"]+)[?#][^\s'")\]]+/gi, '$1?***')
    .replace(/\b(Bearer|Basic)\s+[\w.~+/=-]{6,}/gi, '$1 ***');
}
