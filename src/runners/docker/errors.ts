import { AppError, isAppError } from '../../lib/errors.ts';
import { findTlsErrorReason, type TlsErrorReason } from '../../lib/net/tls-connector.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';

/** A problem that a user can fix, e.g. an image that cannot be pulled. The message is for users. */
export class DockerError extends Error {
  override readonly name = 'DockerError';
}

/** An error response of the engine. */
export class EngineResponseError extends Error {
  override readonly name = 'EngineResponseError';
  readonly status: number;
  /** Text of the response, used to tell cases apart. Never shown to users. */
  readonly responseText: string;

  constructor(status: number, responseText: string) {
    super(`the engine responded with status ${status}`);
    this.status = status;
    this.responseText = responseText;
  }
}

type KnownError = DockerError | EngineResponseError | SshError;

/** Searches an error and its causes: the error of a connector is the cause of the failed request's error. */
export function findDockerError(error: unknown): KnownError | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof DockerError || cause instanceof EngineResponseError || cause instanceof SshError)
      return cause;
  }
  return undefined;
}

const TLS_MESSAGES: Record<TlsErrorReason, string> = {
  untrusted: "The engine's certificate is not signed by the authority in ca.",
  wrong_name: "The engine's certificate is for another name than the one in host.",
  expired: "The engine's certificate has expired, or is not valid yet.",
  not_tls: 'The server at this address does not use TLS: start the engine with --tlsverify.',
  client_refused: 'The engine refused client_cert: it must be signed by the authority of its --tlscacert.',
  other: 'The TLS handshake with the engine failed.',
};

/** Known error texts of the engine. They differ between versions, so only parts are matched. */
const RESPONSE_MESSAGES: readonly (readonly [pattern: RegExp, message: string])[] = [
  [/no such image/i, 'The image is not on the engine.'],
  [/bind source path does not exist/i, "A volume's source is a folder that the engine's host does not have."],
  // The engine refuses this limit instead of dropping it.
  [/nanocpus can ?not be set/i, cannotLimitMessage('CPUs')],
  [/range of cpus/i, 'The engine has fewer CPUs than the limit asks for.'],
  [
    /minimum memory limit|memory limit (too low|smaller)/i,
    'The memory limit is lower than the engine accepts.',
  ],
  [
    /(sh"?: (stat|no such)|executable file not found|no such file or directory)/i,
    'The image has no /bin/sh, which running code needs.',
  ],
  [/no space left/i, "The engine's host has no space left."],
];

/** Error message for users. It never contains text from the engine. That of a `DialError` quotes a line of the SSH server. */
export function explainDockerError(error: unknown): string {
  const dockerError = findDockerError(error);
  if (dockerError !== undefined)
    return dockerError instanceof EngineResponseError
      ? explainResponseError(dockerError)
      : dockerError.message;
  const tls = findTlsErrorReason(error);
  if (tls !== undefined) return TLS_MESSAGES[tls];
  if (isAppError(error, 'upstream_unreachable')) return explainUnreachable(error);
  if (isAppError(error, 'upstream_timeout')) return 'The engine took too long to answer.';
  if (error instanceof AppError) return error.detail;
  return 'The engine could not be used.';
}

/** undici's error for a response that is not HTTP. */
const NOT_HTTP_ERROR = 'HTTPParserError';
const NOT_HTTP =
  'What answers is not an engine. Over SSH, the program with the name docker may be another one, or a script that ' +
  'prints text before it starts docker.';

function explainUnreachable(error: AppError): string {
  const { code, name } = (error.cause ?? {}) as { code?: unknown; name?: unknown };
  if (name === NOT_HTTP_ERROR) return NOT_HTTP;
  if (code === 'ECONNREFUSED')
    return 'Nothing accepts connections at this address: check the port, and whether the engine runs.';
  return error.detail.includes('resolved')
    ? 'The name in host cannot be resolved at the moment.'
    : 'The engine cannot be reached, or the connection broke.';
}

function explainResponseError({ status, responseText }: EngineResponseError): string {
  const known = RESPONSE_MESSAGES.find(([pattern]) => pattern.test(responseText));
  if (known !== undefined) return known[1];
  if (status === 401 || status === 403) return 'The engine does not allow this client to do that.';
  return `The engine refused the request (status ${status}). Check its log, and the image, volumes and limits.`;
}

export function cannotLimitMessage(names: string): string {
  return `The engine cannot limit ${names}, so nothing runs there. Enable the cgroup controllers for that on its host.`;
}
