import { isAppError } from '../../lib/errors.ts';
import { findTlsErrorReason, type TlsErrorReason } from '../../lib/net/tls-connector.ts';

/** Kind of failure between this process and a cluster. */
export type ClusterErrorKind =
  /** The operator's address policy forbids the address. */
  | 'policy'
  | 'unreachable'
  | 'timeout'
  | 'tls'
  /** The cluster does not accept the credentials. */
  | 'unauthenticated'
  /** The cluster accepts the credentials, but they lack a right. */
  | 'forbidden'
  | 'no_namespace'
  /** The cluster refuses the pod: image name, quota, or security policy. */
  | 'refused'
  /** The response is not that of a Kubernetes API. */
  | 'malformed';

/** A failed request to a cluster. The message is for users and holds no text from the server. */
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
  not_tls: 'The server at this address does not use TLS.',
  client_refused: 'The cluster refuses the client certificate.',
  other: 'The TLS handshake with the cluster failed.',
};

/** Converts any error of a connection or a request. */
export function toClusterError(error: unknown): ClusterError {
  if (error instanceof ClusterError) return error;
  const tlsProblem = findTlsErrorReason(error);
  if (tlsProblem !== undefined) return new ClusterError('tls', TLS_MESSAGES[tlsProblem], { cause: error });
  if (isAppError(error, 'endpoint_forbidden'))
    return new ClusterError('policy', error.detail, { cause: error });
  if (isAppError(error, 'upstream_malformed')) return malformedError();
  if (isAppError(error, 'upstream_timeout') || isTimeout(error))
    return new ClusterError('timeout', 'The cluster took too long to answer.', { cause: error });
  return new ClusterError('unreachable', 'The cluster cannot be reached, or the connection broke.', {
    cause: error,
  });
}

function isTimeout(error: unknown): boolean {
  return (error as { name?: unknown }).name === 'TimeoutError';
}

export function malformedError(): ClusterError {
  return new ClusterError('malformed', 'The response is not that of a Kubernetes API: check the address.');
}

/** Converts an error response. The server's text is matched but never shown. */
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
    return new ClusterError('unreachable', `The cluster reports that it is unavailable (status ${status}).`);
  if (status === 409) return new ClusterError('refused', 'The cluster has a pod of this run already.');
  if (status === 400 || status === 422)
    return new ClusterError('refused', 'The cluster refuses the pod: check image and limits.');
  return new ClusterError(
    'malformed',
    `There is no Kubernetes API at this address (status ${status}): check its path.`,
  );
}

function toForbiddenError(text: string): ClusterError {
  if (/exceeded quota|must specify limits|LimitRanger|minimum|maximum .* usage/i.test(text))
    return new ClusterError('refused', 'A quota or limit range of the namespace does not allow the pod.');
  if (text.includes('PodSecurity'))
    return new ClusterError('refused', 'The security policy of the namespace does not allow the pod.');
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
