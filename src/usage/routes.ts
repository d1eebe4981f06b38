import type { Request, Response } from 'express';
import { acceptsCsv, endWithCsv, toCsv } from '../http/csv.ts';
import { endWithCountedJson } from '../http/json-body.ts';
import { jsonRoute, parsedRoute, type HttpCall, type Route } from '../http/route.ts';
import {
  RequestPage,
  RequestParams,
  RequestsQuery,
  RequestView,
  UsageQuery,
  UsageReceipt,
  UsageTotals,
} from './schema.ts';
import type { UserUsage } from './user-usage.ts';
import type { Principal, User } from '../http/principal.ts';
import { AppError } from '../lib/errors.ts';

/** Rows of one export: they are converted at once, while other requests wait. */
const MAX_CSV_ROWS = 1_000;
const NEXT_CURSOR = 'x-ops-next-cursor';

const READ = { method: 'get', access: { scope: 'keys:read' } } as const;

/** The ledger of the user. */
export function usageRoutes({ usage }: { usage: UserUsage }): Route[] {
  return [
    parsedRoute({
      ...READ,
      path: '/api/v1/usage',
      query: UsageQuery,
      async handle(call, request, response) {
        const { principal, query } = call;
        const totals = UsageTotals.parse(await usage.listTotals(getReader(principal), query.group, query));
        send({ call, request, response }, totals, [UsageTotals.shape.data.element, totals.data]);
      },
    }),
    parsedRoute({
      ...READ,
      path: '/api/v1/usage/requests',
      query: RequestsQuery,
      async handle(call, request, response) {
        const { principal, query } = call;
        const limit = acceptsCsv(request) ? MAX_CSV_ROWS : query.limit;
        const page = RequestPage.parse(
          await usage.listRequests(getReader(principal), { ...query, limit }, query),
        );
        if (page.next_cursor !== null) response.setHeader(NEXT_CURSOR, page.next_cursor);
        send({ call, request, response }, page, [RequestView, page.data]);
      },
    }),
    jsonRoute({
      ...READ,
      path: '/api/v1/usage/requests/:id',
      params: RequestParams,
      response: UsageReceipt,
      handle: ({ principal, params }) => usage.getReceipt(getReader(principal), params.id),
    }),
  ];
}

/** @throws AppError `scope_required` (403) for a token that is limited to keys or models: the ledger shows all of them. */
function getReader({ user, token }: Principal): User {
  if (token !== null && (token.keyIds !== null || token.models !== null))
    throw new AppError(
      'scope_required',
      'A token that is limited to keys or models does not read the ledger. Use a token without limits, or a session.',
    );
  return user;
}

interface Exchange {
  call: Pick<HttpCall, 'bodyReservation'>;
  request: Request;
  response: Response;
}

/** Sends JSON, or the rows as CSV where the client asks for it. */
function send(
  { call, request, response }: Exchange,
  json: unknown,
  [schema, rows]: [schema: { shape: object }, rows: readonly Readonly<Record<string, unknown>>[]],
): void {
  response.vary('accept');
  if (acceptsCsv(request)) endWithCsv(response, toCsv(Object.keys(schema.shape), rows), call.bodyReservation);
  else endWithCountedJson(response, json, call.bodyReservation);
}
