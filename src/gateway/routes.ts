import { jsonRoute, rawRoute, type Route } from '../http/route.ts';
import type { ListModels } from './surfaces/models/list-models.ts';
import { asksForAnthropicModels, modelRoutes } from './surfaces/models/routes.ts';
import type { OpenRequestLimit } from '../http/limits.ts';
import type { ErrorFormat } from '../http/errors.ts';
import { BASE_URL_ADVICE, isAnthropicPath, isMisplacedOpenAiPath } from './misplaced-paths.ts';
import { toRoutePreview } from './routing/decision-view.ts';
import type { Routing } from './routing/routing.ts';
import { RoutePreview, RoutePreviewQuery } from './schema.ts';
import type { ServeRequest } from './serve-request.ts';
import type { Surface } from './surface.ts';
import { responsesRoutes } from './responses-routes.ts';
import type { ServeStoredResponse } from './stored-responses/serve-stored-response.ts';
import { toAnthropicError } from './surfaces/anthropic-messages/errors.ts';
import { anthropicMessages, anthropicTokenCount } from './surfaces/anthropic-messages/surface.ts';
import { toOpenAiError } from './openai-errors.ts';
import { embeddings } from './surfaces/embeddings/surface.ts';
import { openAiChat } from './surfaces/openai-chat/surface.ts';
import { withPrincipal } from './with-principal.ts';

export { refuseMisplacedPaths } from './misplaced-paths.ts';

export interface GatewayRouteDeps {
  serveRequest: ServeRequest;
  serveStoredResponse: ServeStoredResponse;
  listModels: ListModels;
  routing: Routing;
  /** Bounds the open requests to `/v1` of each user. */
  openRequestLimit: OpenRequestLimit;
}

/** Errors of a protocol have its format, which its SDKs read, and a header that names their source. */
const PROTOCOL_ERROR = {
  contentType: 'application/json',
  headers: { 'x-ops-error-source': 'ops-center' },
};
export const GATEWAY_ERROR_FORMATS: readonly ErrorFormat[] = [
  { ...PROTOCOL_ERROR, hasPath: isAnthropicPath, body: toAnthropicError },
  { ...PROTOCOL_ERROR, hasPath: asksForAnthropicModels, body: toAnthropicError },
  {
    ...PROTOCOL_ERROR,
    hasPath: (path) => path === '/v1' || path.startsWith('/v1/') || isMisplacedOpenAiPath(path),
    body: toOpenAiError,
  },
];

/** The calls that are served with a key of a provider. */
const SURFACE_ROUTES: readonly [path: string, surface: Surface][] = [
  ['/v1/chat/completions', openAiChat],
  ['/v1/embeddings', embeddings],
  ['/v1/messages', anthropicMessages],
  ['/v1/messages/count_tokens', anthropicTokenCount],
];

/** `/v1` in the shape of the provider protocols, and the preview of routing decisions. */
export function gatewayRoutes({
  serveRequest,
  serveStoredResponse,
  listModels,
  routing,
  openRequestLimit,
}: GatewayRouteDeps): Route[] {
  return [
    ...SURFACE_ROUTES.map(([path, surface]) =>
      rawRoute({
        method: 'post',
        path,
        access: { scope: 'chat' },
        openRequestLimit,
        handle: (call, request, response) => serveRequest(surface, withPrincipal(call), request, response),
      }),
    ),
    // Clients and their users open the base URL to see whether it is right.
    rawRoute({
      method: 'get',
      path: '/v1',
      access: 'public',
      handle: (_call, _request, response) =>
        void response.json({ name: 'Ops Center', message: BASE_URL_ADVICE }),
    }),
    ...responsesRoutes({ serveRequest, serveStoredResponse, openRequestLimit }),
    ...modelRoutes({ listModels, openRequestLimit }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/byok/route',
      access: { scope: 'keys:read' },
      query: RoutePreviewQuery,
      response: RoutePreview,
      async handle({ principal, query }) {
        const { decision, listsRead } = await routing.preview(principal, query.model);
        return toRoutePreview(decision, listsRead);
      },
    }),
  ];
}
