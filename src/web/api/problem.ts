import { z } from 'zod';

const Problem = z.object({
  detail: z.string(),
  code: z.string(),
  request_id: z.string().nullable().catch(null),
  errors: z.array(z.object({ path: z.string(), message: z.string() })).catch([]),
});

/**
 * A failed call. `code` is the API's (docs/api.md, "Errors"), `offline` when no response came, or `bad_response` when the
 * response is not what the API declares, e.g. of a proxy.
 */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly code: string;
  readonly requestId: string | null;
  /** Invalid members of the request: path and message. */
  readonly fieldErrors: readonly { path: string; message: string }[];
  /** All members of the response, for those of one code, e.g. `required_tier`. */
  readonly members: Readonly<Record<string, unknown>>;

  constructor(status: number, body: unknown) {
    const problem = Problem.safeParse(body);
    super(problem.success ? problem.data.detail : `The server answered with status ${String(status)}.`);
    this.status = status;
    this.code = problem.success ? problem.data.code : status === 0 ? 'offline' : 'bad_response';
    this.requestId = problem.success ? problem.data.request_id : null;
    this.fieldErrors = problem.success ? problem.data.errors : [];
    this.members = typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {};
  }
}

/** The code of a page is gone, since the server has a newer one. */
export class OutdatedPageError extends Error {}

export function isApiError(error: unknown, code?: string): error is ApiError {
  return error instanceof ApiError && (code === undefined || error.code === code);
}

/** True when trying again later can help: no response came, or the server or a part of it is away. */
export function isTemporary(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 0 || error.status >= 502 || error.status === 429);
}
