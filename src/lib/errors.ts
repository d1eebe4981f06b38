/**
 * All error codes of the API with their HTTP status. The codes are part of the wire contract (docs/api.md, "Errors");
 * other codes cannot be sent.
 */
const STATUS_BY_CODE = {
  validation_failed: 400,
  invalid_key_format: 400,
  wrong_provider_key: 400,
  key_too_long: 400,
  endpoint_forbidden: 400,
  field_not_allowed: 400,
  ambiguous_field: 400,
  ambiguous_model: 400,
  surface_unsupported: 400,
  unauthenticated: 401,
  tier_required: 403,
  csrf: 403,
  scope_required: 403,
  reauth_required: 403,
  not_found: 404,
  unknown_provider: 404,
  key_not_found: 404,
  model_not_found: 404,
  no_default_server: 404,
  method_not_allowed: 405,
  request_timeout: 408,
  pool_full: 409,
  token_limit: 409,
  duplicate_key: 409,
  server_limit: 409,
  host_key_unconfirmed: 409,
  server_paused: 409,
  request_in_progress: 409,
  already_created: 409,
  version_mismatch: 412,
  body_too_large: 413,
  unsupported_media_type: 415,
  wrong_host: 421,
  idempotency_key_reused: 422,
  key_test_failed: 422,
  limit_unsupported: 422,
  key_undecryptable: 424,
  no_usable_key: 424,
  websocket_unsupported: 426,
  rate_limited: 429,
  internal_error: 500,
  upstream_unreachable: 502,
  upstream_malformed: 502,
  upstream_incomplete: 502,
  keycloak_unavailable: 503,
  database_unavailable: 503,
  busy: 503,
  draining: 503,
  no_default_provider: 503,
  page_not_built: 503,
  upstream_timeout: 504,
  loop_detected: 508,
} as const;

export type ErrorCode = keyof typeof STATUS_BY_CODE;

export interface FieldError {
  /** Path of the invalid member, e.g. `label` or `messages.0.content`. */
  path: string;
  message: string;
}

export interface AppErrorOptions {
  /** Extra members of the response, in wire spelling (e.g. `required_tier`). Never a secret. */
  extra?: Record<string, unknown>;
  errors?: FieldError[];
  /** Response headers, e.g. `retry-after` in seconds. */
  headers?: Record<string, string>;
  cause?: unknown;
}

/** An error that is sent to the caller. `detail` is shown to users and never contains a secret. */
export class AppError extends Error {
  override readonly name = 'AppError';
  readonly code: ErrorCode;
  readonly status: number;
  readonly detail: string;
  readonly extra: Record<string, unknown>;
  readonly errors: FieldError[] | undefined;
  readonly headers: Record<string, string>;

  constructor(code: ErrorCode, detail: string, options: AppErrorOptions = {}) {
    super(`${code}: ${detail}`, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.status = STATUS_BY_CODE[code];
    this.detail = detail;
    this.extra = options.extra ?? {};
    this.errors = options.errors;
    this.headers = options.headers ?? {};
  }
}

/** In seconds. */
const RETRY_SOON = { 'retry-after': '2' };

/** The installation is not set up correctly. The message says what the operator must change; it contains no secret. */
export class UnfitError extends Error {
  override readonly name = 'UnfitError';
}

/** ENCRYPTION_KEY does not fit the stored data. `keys rotate` corrects that, on the database and the Keycloak. */
export class EncryptionKeyError extends UnfitError {}

/** Expected failure of a command. Its message is printed to the terminal without a stack. */
export class StartError extends Error {
  override readonly name = 'StartError';
}

/** True for an {@link AppError}, optionally with one code. */
export function isAppError(error: unknown, code?: ErrorCode): error is AppError {
  return error instanceof AppError && (code === undefined || error.code === code);
}

/** 401. The same text for every reason, so that it reveals nothing. */
export function unauthenticated(cause?: unknown): AppError {
  return new AppError('unauthenticated', 'Sign in first: there is no valid session or token.', { cause });
}

/** 403 with both tiers. */
export function tierRequired(required: string, current: string): AppError {
  return new AppError('tier_required', `This needs the ${required} tier or higher; yours is ${current}.`, {
    extra: { required_tier: required, current_tier: current },
  });
}

/** 403 for what needs the role of those who may run code on this installation's machine, by default just that. */
export function operatorRoleRequired(
  detail = 'Local execution needs the role ops-operator. Ask an administrator for it, or use another server type.',
): AppError {
  return new AppError('scope_required', detail, { extra: { required_role: 'ops-operator' } });
}

/** 404 for a resource that does not exist or belongs to another owner; the two look the same. */
export function notFound(what: string): AppError {
  return new AppError('not_found', `${what} was not found.`);
}

/** 408 for a body that arrives too slowly. The connection is closed: the rest of the body may still arrive on it. */
export function requestTimeout(detail: string): AppError {
  return new AppError('request_timeout', detail, { headers: { connection: 'close' } });
}

/** 429. @param retryAfterS sent as `Retry-After`, in seconds. */
export function rateLimited(detail: string, retryAfterS: number): AppError {
  return new AppError('rate_limited', detail, { headers: { 'retry-after': String(retryAfterS) } });
}

/** 503 when Keycloak is unreachable, slow, or refuses our own credentials. @param detail shown to users. */
export function keycloakUnavailable(
  cause: unknown,
  detail = 'Keycloak cannot be reached right now. Try again shortly.',
): AppError {
  return new AppError('keycloak_unavailable', detail, { cause, headers: RETRY_SOON });
}

/** 503 when the database cannot be reached or is shutting down. */
export function databaseUnavailable(cause: unknown): AppError {
  const detail = 'The database cannot be reached right now. Try again shortly.';
  return new AppError('database_unavailable', detail, { cause, headers: RETRY_SOON });
}
