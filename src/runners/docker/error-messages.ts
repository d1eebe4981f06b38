import { AppError, isAppError } from '../../lib/errors.ts';
import { findTlsErrorReason, type TlsErrorReason } from '../../lib/net/guarded-agent.ts';
import { cannotLimitMessage } from './limit-warnings.ts';
import { EngineResponseError, findDockerError } from './errors.ts';

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

/** Error message for users. It never contains text from the engine. */
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

function explainUnreachable(error: AppError): string {
  const { code } = (error.cause ?? {}) as { code?: unknown };
  if (code === 'ECONNREFUSED')
    return 'Nothing accepts connections at this address: check the port, and whether the engine runs.';
  return error.detail.includes('resolved')
    ? 'The name in host could not be found.'
    : 'The engine cannot be reached, or the connection broke.';
}

function explainResponseError({ status, responseText }: EngineResponseError): string {
  const known = RESPONSE_MESSAGES.find(([pattern]) => pattern.test(responseText));
  if (known !== undefined) return known[1];
  if (status === 401 || status === 403) return 'The engine does not allow this client to do that.';
  return `The engine refused the request (status ${status}). Check its log, and the image, volumes and limits.`;
}
