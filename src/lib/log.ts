import { pino, type DestinationStream, type Logger } from 'pino';
import { createLogStream, type LogStream } from './log-stream.ts';

export type Log = Logger;

/**
 * Members whose value is redacted in every log line. This is the second line of defence: the code does not log bodies,
 * headers or configuration.
 */
const SECRET_MEMBERS = [
  'authorization',
  'cookie',
  'key',
  'pem',
  'private_key',
  'passphrase',
  'kubeconfig',
  'api_key',
  'apiKey',
  'token',
  'secret',
  'password',
  'client_secret',
  'encryptionKeys',
  'sessionSecret',
];

/**
 * Creates the process's log: JSON lines with UTC times.
 * @param destination standard output by default.
 */
export function createLog(level: string, destination?: DestinationStream): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: SECRET_MEMBERS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '***' },
      serializers: { err: serializeError },
    },
    destination ?? openStandardOutput(),
  );
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

/**
 * Logs name, message, code, stack and causes of an error only. Other properties are not copied, because errors of
 * libraries contain whole requests with credentials.
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
