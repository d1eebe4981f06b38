import type { Request } from 'express';
import { BYOK_TIER } from '../config/tiers.ts';
import type { OpenRequestLimit } from '../http/limits.ts';
import { rawRoute, type Route } from '../http/route.ts';
import { AppError } from '../lib/errors.ts';
import type { ServeRequest } from './serve-request.ts';
import type {
  ServeStoredResponse,
  StoredResponseOperation,
} from './stored-responses/serve-stored-response.ts';
import { openAiResponses } from './surfaces/openai-responses/surface.ts';
import { withPrincipal } from './with-principal.ts';

export interface ResponsesRouteDeps {
  serveRequest: ServeRequest;
  serveStoredResponse: ServeStoredResponse;
  openRequestLimit: OpenRequestLimit;
}

const STORED_RESPONSE = '/v1/responses/:id';
/** Each operation on a stored response with its route. */
const OPERATIONS: readonly (StoredResponseOperation & { route: 'get' | 'post' | 'delete' })[] = [
  { route: 'get', method: 'GET', suffix: '' },
  { route: 'delete', method: 'DELETE', suffix: '' },
  { route: 'post', method: 'POST', suffix: '/cancel' },
  { route: 'get', method: 'GET', suffix: '/input_items' },
];

/** OpenAI's Responses: `/v1/responses`, and stored responses below it. */
export function responsesRoutes(deps: ResponsesRouteDeps): Route[] {
  const { serveRequest, serveStoredResponse, openRequestLimit } = deps;
  const common = { access: { scope: 'chat' }, openRequestLimit } as const;
  return [
    rawRoute({
      ...common,
      method: 'post',
      path: '/v1/responses',
      handle: (call, request, response) =>
        serveRequest(openAiResponses, withPrincipal(call), request, response),
    }),
    ...OPERATIONS.map(({ route, ...operation }) =>
      rawRoute({
        ...common,
        method: route,
        tier: BYOK_TIER,
        path: `${STORED_RESPONSE}${operation.suffix}`,
        handle: (call, request, response) =>
          serveStoredResponse(openAiResponses, operation, withPrincipal(call), request, response),
      }),
    ),
    ...[
      { path: '/v1/responses', methods: 'POST' },
      { path: '/v1/realtime', methods: '' },
    ].map(({ path, methods }) =>
      rawRoute({ ...common, method: 'get', path, handle: (_call, request) => refuseGet(request, methods) }),
    ),
  ];
}

/**
 * Clients that begin with a WebSocket use HTTP after a 426 (Codex:
 * https://github.com/openai/codex/blob/main/codex-rs/core/src/client.rs).
 */
function refuseGet(request: Request, allow: string): never {
  const isWebSocket = /(^|,)\s*websocket\s*(,|$)/i.test(request.get('upgrade') ?? '');
  if (isWebSocket)
    throw new AppError(
      'websocket_unsupported',
      'WebSockets are not available. Send the request with HTTP: POST /v1/responses.',
      { headers: { upgrade: 'HTTP/1.1', 'x-should-retry': 'false' } },
    );
  throw new AppError(
    'method_not_allowed',
    allow === '' ? 'Realtime sessions are not available.' : `This path supports ${allow} only.`,
    { headers: { allow } },
  );
}
