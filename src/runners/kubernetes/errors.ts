import { isAppError } from '../../lib/errors.ts';
import { findTlsErrorReason, type TlsErrorReason } from '../../lib/net/guarded-agent.ts';

/** What went wrong between this process and a cluster. */
export type ClusterErrorKind =
  /** The operator lets nobody go there. */
  | 'policy'
  | 'unreachable'
  | 'timeout'
  | 'tls'
  /** It does not know the credentials. */
  | 'unauthenticated'
  /** It knows them, and they do not suffice. */
  | 'forbidden'
  | 'no_namespace'
  /** The pod as such is refused: its image's name, a quota, a security policy. */
  | 'refused'
  /** It answers in no way an API server does. */
  | 'malformed';

/** A cluster that does not do what it was asked. The message is for people, and holds nothing that a server sent. */
export class ClusterError extends Error {
  override readonly name = 'ClusterError';
  readonly kind: ClusterErrorKind;

  constructor(kind: ClusterErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

const TLS_MESSAGES: Readonly<Record<TlsErrorReason, string>> = {
  untrusted: 'The certificate of the cluster does not come from the given authority: check ca_cert.',
  wrong_name: 'The certificate of the cluster was made for another name or address.',
  expired: 'The certificate of the cluster has expired or is not valid yet.',
  not_tls: 'What answers at that port does not speak TLS.',
  client_refused: 'The cluster refuses the client certificate.',
  other: 'A TLS connection to the cluster could not be made.',
};

/** Wraps whatever a connection or a request fails with. */
export function toClusterError(error: unknown): ClusterError {
  if (error instanceof ClusterError) return error;
  const tlsProblem = findTlsErrorReason(error);
  if (tlsProblem !== undefined) return new ClusterError('tls', TLS_MESSAGES[tlsProblem], { cause: error });
  if (isAppError(error, 'endpoint_forbidden'))
    return new ClusterError('policy', error.detail, { cause: error });
  if (isAppError(error, 'upstream_timeout') || isTimeout(error))
    return new ClusterError('timeout', 'The cluster took too long to answer.', { cause: error });
  return new ClusterError('unreachable', 'The cluster could not be reached, or broke off.', { cause: error });
}

function isTimeout(error: unknown): boolean {
  const { name } = error as { name?: unknown };
  return name === 'TimeoutError' || name === 'HeadersTimeoutError';
}

/** What a refused request says to people. The server's own words are read, never shown. */
export function clusterErrorFromResponse(status: number, body: unknown): ClusterError {
  const text = readMessage(body);
  if (status === 401) {
    return new ClusterError(
      'unauthenticated',
      'The cluster does not accept the token or certificate: it is wrong, or has expired.',
    );
  }
  if (status === 403) return toForbiddenError(text);
  if (status === 404) return new ClusterError('no_namespace', 'There is no such namespace in the cluster.');
  if (status === 429 || status >= 500)
    return new ClusterError('unreachable', `The cluster answers that it cannot serve now (${status}).`);
  if (status === 409) return new ClusterError('refused', 'The cluster has a pod of this run already.');
  if (status === 400 || status === 422)
    return new ClusterError('refused', 'The cluster refuses the pod: check image and limits.');
  return new ClusterError(
    'malformed',
    `What answers there is no Kubernetes API, or not at this address (${status}).`,
  );
}

function toForbiddenError(text: string): ClusterError {
  if (/exceeded quota|must specify limits|LimitRanger|minimum|maximum .* usage/i.test(text))
    return new ClusterError('refused', 'A quota or limit range of the namespace does not let the pod in.');
  if (text.includes('PodSecurity'))
    return new ClusterError('refused', 'The security policy of the namespace does not let the pod in.');
  if (text.includes('being terminated'))
    return new ClusterError('no_namespace', 'The namespace is being deleted.');
  return new ClusterError(
    'forbidden',
    'The account may not do this in the namespace; test the server to see what is missing.',
  );
}

function readMessage(body: unknown): string {
  const message = (body as { message?: unknown } | undefined)?.message;
  return typeof message === 'string' ? message : '';
}
