import type { Express, Request, Response } from 'express';
import { z, type ZodType } from 'zod';
import { AppError, isAppError, type FieldError } from '../lib/errors.ts';
import type { JsonLimits } from '../lib/json.ts';
import type { Log } from '../lib/log.ts';
import { describeIssue } from '../lib/validation-messages.ts';
import type { Tier } from '../config/tiers.ts';
import { createBodyBudget, type BodyReservation } from './body-budget.ts';
import { endWithCountedJson, parseJsonBody, readJsonBody } from './json-body.ts';
import { createOpenRequestLimit, createRefusedBodyLimit, type OpenRequestLimit } from './limits.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import { findRefusal, type Access } from './authorization.ts';
import type { Authenticate, Principal } from './principal.ts';

interface RouteDeclaration {
  method: 'get' | 'post' | 'patch' | 'put' | 'delete';
  path: string;
  access: Access;
  /** The lowest tier that may call the route, compared with the user's current tier in Keycloak. */
  tier?: Tier;
  /**
   * Bounds the open requests of each user on this route; by default one limit that most routes share, with a rate.
   */
  openRequestLimit?: OpenRequestLimit;
}

export interface HttpCall {
  /** Null on public routes only. */
  principal: Principal | null;
  requestId: string;
  log: Log;
  /** Memory for the bodies of this request and its response. */
  bodyReservation: BodyReservation;
  /**
   * Authenticates and authorizes the request again after its body was read, unless that took at most
   * {@link MAX_AUTHORIZATION_AGE_MS}. Throws what the first check throws (401, 403). Not for public routes.
   */
  reauthorize(): Promise<Principal>;
}

export interface RouteCall<Params, Query, Body> extends Omit<HttpCall, 'principal'> {
  principal: Principal;
  params: Params;
  query: Query;
  body: Body;
}

/** A REST route that writes its own response, e.g. a stream. All input is parsed by schemas. */
export interface ParsedRoute<Params, Query, Body> extends RouteDeclaration {
  access: Exclude<Access, 'public'>;
  params?: ZodType<Params>;
  query?: ZodType<Query>;
  body?: ZodType<Body>;
  handle(call: RouteCall<Params, Query, Body>, request: Request, response: Response): Promise<void> | void;
}

/** A REST route whose input and output are parsed by schemas. */
export interface JsonRoute<Params, Query, Body, Result> extends Omit<
  ParsedRoute<Params, Query, Body>,
  'handle'
> {
  /** Parses the response and drops undeclared members, which prevents leaking secrets. */
  response: ZodType<Result>;
  /** 200 by default; may depend on the request body. */
  status?: number | ((body: Body) => number);
  /** Returns the response body. Use `request` and `response` for headers only. */
  handle(
    call: RouteCall<Params, Query, Body>,
    request: Request,
    response: Response,
  ): Promise<Result> | Result;
}

/** A route that writes its own response: redirects, pages, streams. It reads its body itself, after the guards. */
export interface RawRoute extends RouteDeclaration {
  handle(call: HttpCall, request: Request, response: Response): Promise<void> | void;
}

export interface Route extends RouteDeclaration {
  handle(call: HttpCall, request: Request, response: Response): Promise<void>;
}

/** For so long after it, a check still counts. A revocation takes longer to reach all instances. */
const MAX_AUTHORIZATION_AGE_MS = 250;
const MAX_BODY_BYTES = 1024 * 1024;
/** No body of the API needs more: the largest parts are a run's files and a server's environment. */
const BODY_LIMITS: JsonLimits = { objectMembers: 1_000, members: 10_000, elements: 10_000 };
/** Declares a REST route. Errors: 400 `validation_failed`, 413, 415, and what `handle` throws. */
export function jsonRoute<Params = object, Query = object, Body = undefined, Result = unknown>(
  declaration: JsonRoute<Params, Query, Body, Result>,
): Route {
  return parsedRoute<Params, Query, Body>({
    ...declaration,
    async handle(call, request, response) {
      const result = await declaration.handle(call, request, response);
      const status =
        typeof declaration.status === 'function'
          ? declaration.status(call.body)
          : (declaration.status ?? 200);
      endWithCountedJson(response.status(status), declaration.response.parse(result), call.bodyReservation);
    },
  });
}

/** Declares a REST route that writes its own response. Errors: see {@link jsonRoute}. */
export function parsedRoute<Params = object, Query = object, Body = undefined>(
  declaration: ParsedRoute<Params, Query, Body>,
): Route {
  return {
    ...pickDeclaration(declaration),
    async handle(call, request, response) {
      if (call.principal === null) throw new Error(`${declaration.path} needs a principal`);
      const params = parseOptional(declaration.params, request.params, 'path') as Params;
      const query = parseOptional(declaration.query, request.query, 'query') as Query;
      const received = declaration.body && (await readInput(request, call.bodyReservation));
      const principal = declaration.body ? await call.reauthorize() : call.principal;
      const body = parseOptional(declaration.body, received, 'body') as Body;
      await declaration.handle({ ...call, principal, params, query, body }, request, response);
    },
  };
}

export function rawRoute(declaration: RawRoute): Route {
  return {
    ...pickDeclaration(declaration),
    handle: async (call, request, response) => declaration.handle(call, request, response),
  };
}

export interface RouteGuards {
  authenticate: Authenticate;
  /** Throws `csrf` (403) on a cross-site write. */
  refuseCrossSite(request: Request): void;
  /** Writes a refusal by tier to the user's audit trail, before the response is sent. */
  auditTierRefusal(principal: Principal, route: RouteName, requestId: string): Promise<void>;
}

/** Identifies a route in the audit trail. */
export type RouteName = Pick<RouteDeclaration, 'method' | 'path'>;

/** Stands for all clients of public routes, which read small bodies only. */
const ANONYMOUS = 'anonymous';

/** Concurrent requests for each user, over all routes without a limit of their own. */
const MAX_OPEN_REQUESTS = 64;
/**
 * Requests of each user, over the same routes, and those that are refused by scope or tier over all routes. Reading keys and roles is a request to Keycloak each time, and changes
 * have rows in the audit trail.
 */
const MAX_REQUESTS_PER_MINUTE = 1_200;

/**
 * Mounts the declared routes. Every request passes these guards in order: authentication, cross-site guard, rate,
 * scope, tier. Then its body is read, and if that took long, they run again. A known path with another method gets a 405.
 * @throws Error at start when a route declares no access or is declared twice.
 */
export function mountRoutes(app: Express, routes: readonly Route[], guards: RouteGuards): void {
  const seen = new Set<string>();
  const sharedLimit = createOpenRequestLimit(MAX_OPEN_REQUESTS);
  const rateLimit = createRateLimit({
    maxUses: MAX_REQUESTS_PER_MINUTE,
    rejectionDetail: `At most ${MAX_REQUESTS_PER_MINUTE} requests a minute. Wait, then try again.`,
  });
  const refusedBodyLimit = createRefusedBodyLimit();
  const bodyBudget = createBodyBudget();
  for (const route of routes) {
    const name = `${route.method} ${route.path}`;
    // The type requires `access`; this check also covers casts.
    if ((route.access as unknown) === undefined) throw new Error(`${name} declares no access`);
    if (seen.has(name)) throw new Error(`${name} is declared twice`);
    seen.add(name);
    app[route.method](route.path, async (request, response) => {
      const caller: { principal?: Principal | undefined; checkedAtMs: number } = { checkedAtMs: 0 };
      const context = getRequestContext(response);
      const identify = async () => {
        // The time before the check, since something can be revoked during it.
        Object.assign(caller, { principal: undefined, checkedAtMs: performance.now() });
        return (caller.principal = await authenticate(route, guards, request, response));
      };
      const reauthorize = async () => {
        const ageMs = performance.now() - caller.checkedAtMs;
        if (caller.principal !== undefined && ageMs <= MAX_AUTHORIZATION_AGE_MS) return caller.principal;
        const principal = await identify();
        const refusal = findRefusal(route, principal);
        if (refusal !== undefined) throw refusal;
        return principal;
      };
      const admit = async () => {
        const principal = await identify();
        const refusal = findRefusal(route, principal);
        // A refused request counts on every route: the limit of open requests does not bound it.
        if (refusal !== undefined || route.openRequestLimit === undefined)
          await rateLimit.consume(principal.user.id);
        if (refusal !== undefined) throw refusal;
        return principal;
      };
      try {
        const principal = route.access === 'public' ? null : await admit();
        const bodyReservation = bodyBudget.createReservation(principal?.user.id ?? ANONYMOUS, response);
        const serve = () =>
          route.handle({ principal, reauthorize, bodyReservation, ...context }, request, response);
        if (principal === null) await serve();
        else {
          await (route.openRequestLimit ?? sharedLimit).acquire(principal.user.id, response);
          await refusedBodyLimit.run(principal.user.id, request, serve);
        }
      } catch (error) {
        if (caller.principal !== undefined && isAppError(error, 'tier_required'))
          await guards.auditTierRefusal(caller.principal, route, context.requestId);
        throw error;
      }
    });
  }
  for (const path of new Set(routes.map((route) => route.path))) {
    const allow = routes.filter((route) => route.path === path).map((route) => route.method.toUpperCase());
    app.all(path, () => {
      throw new AppError('method_not_allowed', `This path supports ${allow.join(', ')} only.`, {
        headers: { allow: allow.join(', ') },
      });
    });
  }
}

/** The request id and log that `createRequestContext` has set. */
export function getRequestContext(response: Response): { requestId: string; log: Log } {
  return response.locals as { requestId: string; log: Log };
}

async function authenticate(
  route: Route,
  guards: RouteGuards,
  request: Request,
  response: Response,
): Promise<Principal> {
  if (route.access === 'public')
    throw new Error(`${route.path} is public: public routes must not authenticate`);
  const principal = await guards.authenticate(request, response);
  if (principal.credential === 'session') guards.refuseCrossSite(request);
  return principal;
}

/** @returns undefined when the request has no body. */
async function readInput(request: Request, reservation: BodyReservation): Promise<unknown> {
  const body = await readJsonBody(request, { maxBytes: MAX_BODY_BYTES, limits: BODY_LIMITS, reservation });
  const value = body.bytes.length === 0 ? undefined : parseJsonBody(body);
  reservation.keepOnly(body.bytes.length);
  return value;
}

function parseOptional(schema: ZodType | undefined, value: unknown, part: InputPart): unknown {
  return schema === undefined ? undefined : parseInput(schema, value, part);
}

/** Names the input as a whole in an error. */
type InputPart = 'path' | 'query' | 'body';

/** Parses input of a request. @throws AppError `validation_failed` (400) with the invalid members. */
export function parseInput<T>(schema: ZodType<T>, value: unknown, part: InputPart): T {
  const result = schema.safeParse(value, { error: describeIssue });
  if (result.success) return result.data;
  throw new AppError('validation_failed', 'The request is not valid; see errors.', {
    errors: toFieldErrors(result.error, part),
  });
}

/** Converts Zod's issues. Messages name fields and rules, never the value. */
function toFieldErrors(error: z.ZodError, part: string): FieldError[] {
  return error.issues.map((issue) => ({ path: issue.path.join('.') || part, message: issue.message }));
}

function pickDeclaration(declaration: RouteDeclaration): RouteDeclaration {
  const { method, path, access, tier, openRequestLimit } = declaration;
  return {
    ...{ method, path, access },
    ...(tier !== undefined && { tier }),
    ...(openRequestLimit !== undefined && { openRequestLimit }),
  };
}
