import { pino, type DestinationStream, type Logger } from 'pino';

export type Log = Logger;

/**
 * Members whose value is never written, whatever logs them. This is the second line: the first is that
 * nothing logs bodies, headers or configuration.
 */
const SECRET_MEMBERS = [
  'authorization',
  'cookie',
  'key',
  'api_key',
  'apiKey',
  'token',
  'secret',
  'password',
  'client_secret',
  'encryptionKeys',
  'sessionSecret',
];

/** Builds the process's log: JSON lines with UTC times; `destination` is for tests. */
export function createLog(level: string, destination?: DestinationStream): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: SECRET_MEMBERS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '***' },
      serializers: { err: serializeError },
    },
    destination ?? pino.destination({ fd: 1, sync: false }),
  );
}

/**
 * An error as the log shows it: name, message, code, stack and causes, and nothing else. Library errors
 * carry whole requests (with credentials) as properties, so properties are not copied.
 */
function serializeError(error: unknown): unknown {
  if (!(error instanceof Error)) return { message: String(error) };
  const code = (error as { code?: unknown }).code;
  return {
    type: error.name,
    message: error.message,
    ...(typeof code === 'string' ? { code } : {}),
    stack: error.stack,
    ...(error.cause === undefined ? {} : { cause: serializeError(error.cause) }),
  };
}
