import { AppError, isAppError } from '../../lib/errors.ts';
import { findTlsErrorReason, type TlsErrorReason } from '../../lib/net/guarded-agent.ts';
import { cannotLimitMessage } from './limit-warnings.ts';
import { EngineResponseError, findDockerError } from './errors.ts';

const TLS_MESSAGES: Record<TlsErrorReason, string> = {
  untrusted: "The engine's certificate is not signed by the authority in ca.",
  wrong_name: "The engine's certificate is for another name than the one in host.",
  expired: "The engine's certificate has expired, or is not valid yet.",
  not_tls: 'What answers there does not speak TLS: start the engine with --tlsverify.',
  client_refused: 'The engine refused client_cert: it must be signed by the authority of its --tlscacert.',
  other: 'No encrypted connection could be agreed on with the engine.',
};

/** Of the engine's own words, the cases that people meet. They differ between versions, so only parts are looked for. */
const RESPONSE_MESSAGES: readonly (readonly [pattern: RegExp, message: string])[] = [
  [/no such image/i, 'The image is not on the engine.'],
  [/bind source path does not exist/i, "A volume's source is a folder that the engine's host does not have."],
  // Of this one limit it does not make a container without.
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

/** What went wrong with an engine, for people: never what the engine sent. */
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
    return 'Nothing accepts connections there: look at the port, and at the engine.';
  return error.detail.includes('resolved')
    ? 'The name in host could not be found.'
    : 'The engine could not be reached, or broke off.';
}

function explainResponseError({ status, responseText: said }: EngineResponseError): string {
  const known = RESPONSE_MESSAGES.find(([pattern]) => pattern.test(said));
  if (known !== undefined) return known[1];
  if (status === 401 || status === 403) return 'The engine does not allow this client to do that.';
  return `The engine refused (status ${status}). Look at its log, and at image, volumes and limits.`;
}
