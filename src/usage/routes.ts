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

/** Rows of one export. */
const MAX_CSV_ROWS = 10_000;
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
        const totals = UsageTotals.parse(await usage.listTotals(principal.user, query.group, query));
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
        const page = RequestPage.parse(await usage.listRequests(principal.user, { ...query, limit }, query));
        if (page.next_cursor !== null) response.setHeader(NEXT_CURSOR, page.next_cursor);
        send({ call, request, response }, page, [RequestView, page.data]);
      },
    }),
    jsonRoute({
      ...READ,
      path: '/api/v1/usage/requests/:id',
      params: RequestParams,
      response: UsageReceipt,
      handle: ({ principal, params }) => usage.getReceipt(principal.user, params.id),
    }),
  ];
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
