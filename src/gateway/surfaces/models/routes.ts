import type { IncomingHttpHeaders } from 'node:http';
import type { Request, Response } from 'express';
import { endWithCountedJson } from '../../../http/json-body.ts';
import type { OpenRequestLimit } from '../../../http/limits.ts';
import { rawRoute, type HttpCall, type Route } from '../../../http/route.ts';
import { LOOP_HEADER } from '../../../lib/net/loop-guard.ts';
import { createRateLimit } from '../../../lib/rate-limit.ts';
import { withPrincipal } from '../../with-principal.ts';
import { toAnthropicModel, toAnthropicPage } from './anthropic-shape.ts';
import { getModel } from './find-model.ts';
import type { CallerModel, ListModels } from './list-models.ts';
import { toOpenAiList, toOpenAiModel } from './openai-shape.ts';

export interface ModelRouteDeps {
  listModels: ListModels;
  openRequestLimit: OpenRequestLimit;
}

/** A list of all endpoints of a user has several MB. */
const MAX_LISTS_PER_MINUTE = 120;
const PATH = '/v1/models';

/** True for a request for models in Anthropic's protocol, which has the same paths as OpenAI's. */
export function asksForAnthropicModels(path: string, headers: IncomingHttpHeaders): boolean {
  return (path === PATH || path.startsWith(`${PATH}/`)) && headers['anthropic-version'] !== undefined;
}

/** The models of the caller: all of them, and one by its id, which can contain slashes. */
export function modelRoutes({ listModels, openRequestLimit }: ModelRouteDeps): Route[] {
  const limit = createRateLimit({
    maxUses: MAX_LISTS_PER_MINUTE,
    rejectionDetail: `Models are listed at most ${MAX_LISTS_PER_MINUTE} times a minute. Try again later.`,
  });
  async function list(call: HttpCall, request: Request): Promise<readonly CallerModel[]> {
    const { principal } = withPrincipal(call);
    await limit.consume(principal.user.id);
    return listModels(principal, request.get(LOOP_HEADER));
  }
  const route = (
    path: string,
    toBody: (models: readonly CallerModel[], request: Request) => unknown,
  ): Route =>
    rawRoute({
      method: 'get',
      path,
      access: { scope: 'chat' },
      openRequestLimit,
      async handle(call: HttpCall, request: Request, response: Response) {
        const body = toBody(await list(call, request), request);
        endWithCountedJson(response, body, call.bodyReservation);
      },
    });
  return [
    route(PATH, (models, request) =>
      isAnthropic(request) ? toAnthropicPage(models, request.query) : toOpenAiList(models),
    ),
    route(`${PATH}/*id`, (models, request) => {
      const model = getModel(models, readId(request));
      return isAnthropic(request) ? toAnthropicModel(model) : toOpenAiModel(model);
    }),
  ];
}

function isAnthropic({ path, headers }: Request): boolean {
  return asksForAnthropicModels(path, headers);
}

/** The segments of the path are decoded, so that `%2F` in an id is a slash as well. */
function readId({ params }: Request): string {
  return [params['id'] ?? []].flat().join('/');
}
