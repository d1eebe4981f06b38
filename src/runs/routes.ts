import type { Request, Response } from 'express';
import { z } from 'zod';
import type { BodyReservation } from '../http/body-budget.ts';
import { drainingError } from '../http/draining-error.ts';
import { endWithCountedJson } from '../http/json-body.ts';
import type { Principal } from '../http/principal.ts';
import { jsonRoute, parsedRoute, type Route, type RouteCall } from '../http/route.ts';
import { onResponseClosed } from '../http/on-response-closed.ts';
import type { Idempotency } from '../idempotency/service.ts';
import type { ActiveWork } from '../identity/service.ts';
import { AppError } from '../lib/errors.ts';
import { userOwner } from '../lib/owner.ts';
import { BYOK_TIER } from '../config/tiers.ts';
import {
  EventsQuery,
  RunDetails,
  RunPage,
  RunParams,
  RunServerParams,
  RunsQuery,
  StartRun,
  RunResult,
} from './schema.ts';
import type { RunRef } from './run-encryption.ts';
import { createRunId, type RunService } from './service.ts';
import { streamEvents, collectResult } from './viewer.ts';

export interface RunRouteDeps {
  runs: RunService;
  activeWork: ActiveWork;
  idempotency: Idempotency;
}

const RUN = { scope: 'run' } as const;
const START_ROUTE = { method: 'post', access: RUN, tier: BYOK_TIER, body: StartRun } as const;

/**
 * Starting, listing, reading and cancelling runs. Reading and cancelling are open to every tier, and to tokens as far as
 * the server's owner allows it.
 */
export function runRoutes(deps: RunRouteDeps): Route[] {
  const { runs } = deps;
  const handlers = createEventHandlers(deps);
  return [
    // Before the route with a parameter, which would match it.
    parsedRoute({
      ...START_ROUTE,
      path: '/api/v1/execution-servers/default/run',
      handle: (call, request, response) => handlers.start(call, 'default', request, response),
    }),
    parsedRoute({
      ...START_ROUTE,
      path: '/api/v1/execution-servers/:id/run',
      params: RunServerParams,
      handle: (call, request, response) => handlers.start(call, call.params.id, request, response),
    }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/runs',
      access: RUN,
      query: RunsQuery,
      response: RunPage,
      handle: ({ principal, query }) => runs.list(principal, query),
    }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/runs/:id',
      access: RUN,
      params: RunParams,
      response: RunDetails,
      handle: ({ principal, params }) => runs.get(principal, params.id),
    }),
    parsedRoute({
      method: 'get',
      path: '/api/v1/runs/:id/events',
      access: RUN,
      params: RunParams,
      query: EventsQuery,
      handle: (call, request, response) => handlers.resume(call, request, response),
    }),
    jsonRoute({
      method: 'delete',
      path: '/api/v1/runs/:id',
      access: RUN,
      params: RunParams,
      response: z.object({ run_id: z.string() }),
      status: 202,
      async handle({ principal, params, requestId }) {
        await runs.cancel(principal, params.id, requestId);
        return { run_id: params.id };
      },
    }),
  ];
}

type ResumeCall = RouteCall<z.output<typeof RunParams>, z.output<typeof EventsQuery>, undefined>;

/** The responses that last as long as a run. */
function createEventHandlers({ runs, activeWork, idempotency }: RunRouteDeps) {
  async function start(
    call: RouteCall<object, object, StartRun>,
    ref: string,
    request: Request,
    response: Response,
  ): Promise<void> {
    const { principal, body, requestId, log, bodyReservation } = call;
    const { id } = await idempotency.createOnce(
      { principal, request, response, input: [ref, body] },
      {
        createId: createRunId,
        create: (newId) => runs.submit(principal, ref, body, requestId, newId),
        result: z.object({ id: z.string() }),
      },
    );
    const run = { id, owner: userOwner(principal.user.id) };
    // A repeat may read the run only while the server's owner lets this credential see it.
    if (response.hasHeader('idempotent-replayed')) await runs.getProgress(principal, id);
    response.setHeader('location', `/api/v1/runs/${run.id}`);
    if (prefersAsync(request)) {
      response.setHeader('preference-applied', 'respond-async');
      endWithCountedJson(response.status(202), { run_id: run.id }, bodyReservation);
      return;
    }
    if (body.on_disconnect === 'cancel')
      onResponseClosed(response, () => {
        if (response.writableFinished) return;
        runs.cancel(principal, run.id, requestId, 'viewer_left').catch((error: unknown) => {
          log.warn({ err: error }, 'a run could not be cancelled after its viewer disconnected');
        });
      });
    const wantsJson = request.accepts(['text/event-stream', 'application/json']) === 'application/json';
    await withViewer(principal, run, response, (signal) =>
      wantsJson
        ? sendResult(run, runs.subscribeKept(run, signal), response, bodyReservation)
        : streamEvents(response, run.id, runs.subscribe(run, 0, signal), signal),
    );
  }

  /** Ends the response when the connection closes or the viewer's sign-in ends. */
  async function withViewer(
    principal: Principal,
    run: RunRef,
    response: Response,
    respond: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const disconnected = new AbortController();
    onResponseClosed(response, () => {
      disconnected.abort();
    });
    const unregister = activeWork.register(principal, (reason) => {
      // A viewer of a run that ends with this process still receives its exit.
      if (reason !== 'draining' || !runs.isActive(run)) disconnected.abort();
    });
    try {
      await respond(disconnected.signal);
    } finally {
      unregister();
    }
  }

  async function resume(call: ResumeCall, request: Request, response: Response): Promise<void> {
    const { principal, params, query } = call;
    const afterSeq = query.from === undefined ? readLastEventId(request) : query.from - 1;
    const run = await runs.getProgress(principal, params.id);
    // 204 stops a browser's EventSource; after any other end it reconnects.
    if (run.status === 'finished' && run.cause !== 'lost' && afterSeq >= (run.lastSeq ?? 0)) {
      response.status(204).end();
      return;
    }
    await withViewer(principal, run, response, (signal) =>
      streamEvents(response, run.id, runs.subscribe(run, afterSeq, signal), signal),
    );
  }

  return { start, resume };
}

async function sendResult(
  run: RunRef,
  events: Parameters<typeof collectResult>[1],
  response: Response,
  reservation: BodyReservation,
): Promise<void> {
  const result = await collectResult(run.id, events);
  if (result !== undefined) endWithCountedJson(response, RunResult.parse(result), reservation);
  else if (!response.destroyed) throw drainingError();
}

/** RFC 7240, section 4.1. */
function prefersAsync(request: Request): boolean {
  const preferences = (request.get('prefer') ?? '').split(',');
  return preferences.some((preference) => preference.split(';')[0]?.trim().toLowerCase() === 'respond-async');
}

/** @throws AppError `validation_failed` (400). */
function readLastEventId(request: Request): number {
  const header = request.get('last-event-id') ?? '0';
  if (/^\d{1,9}$/.test(header)) return Number(header);
  throw new AppError(
    'validation_failed',
    'Last-Event-ID must be the id of an event of this run: a number of at most 9 digits.',
  );
}
