import connectPgSimple from 'connect-pg-simple';
import type { Request, Response } from 'express';
import expressSession from 'express-session';
import type { Database } from '../lib/postgres/database.ts';
import { AppError, databaseUnavailable } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { SessionContent, type StoredSession } from './schema.ts';
import type { SessionCookie } from './session-cookie.ts';
import type { SessionStore } from './session-store.ts';

declare module 'express-session' {
  interface SessionData extends Partial<SessionContent> {}
}

/** Browser sessions: a signed cookie with the id of a row in Postgres. */
export interface Sessions {
  /**
   * Refuses cookies of several sessions. Of these, those count whose row exists: a cookie also verifies after its session
   * has ended.
   * @throws AppError `validation_failed` for cookies of two sessions that exist: a sibling host could have set one of
   *   them; `database_unavailable`.
   */
  refuseSeveral(request: Request): Promise<void>;
  /**
   * Reads the session of the request's cookie from its row, and writes that it is used; undefined when the cookie names
   * none or the session has ended.
   * @throws AppError as `refuseSeveral`.
   */
  find(request: Request): Promise<StoredSession | undefined>;
  /** Ends the session of the cookie, if any, and creates one with a new id. Sets the cookie in the response. */
  replace(request: Request, response: Response, content: SessionContent): Promise<StoredSession>;
  /** Undoes `replace`: deletes the row. The response gets no cookie, even if the database fails. */
  discard(request: Request): Promise<void>;
  clearCookie: (response: Response) => void;
  /** Stops pruning expired rows. */
  close(): void;
}

export interface SessionsDeps {
  database: Database;
  secret: string;
  cookieName: string;
  sessionCookie: SessionCookie;
  store: Pick<SessionStore, 'findUsedSession' | 'listValidSessionIds'>;
  /** Whether cookies are Secure: all but local mode. */
  secure: boolean;
  log: Log;
}

const LIFETIME_MS = 12 * 60 * 60_000;
const PRUNE_INTERVAL_S = 15 * 60;

/**
 * Reads the row of the cookie once for each check of a request, and creates rows with express-session. Its middleware
 * runs only then: it would verify the cookie once more, and hash the session at its start and at its end to find
 * changes. A session is written once, on creation: otherwise the middleware could insert a row again that a logout has
 * just deleted. Refreshed tokens are written by SessionStore.replaceTokens.
 */
export function createSessions(deps: SessionsDeps): Sessions {
  const cookie = { httpOnly: true, sameSite: 'lax', path: '/', secure: deps.secure } as const;
  const rows = new (connectPgSimple(expressSession))({
    pool: deps.database.pool,
    tableName: 'sessions',
    createTableIfMissing: false,
    disableTouch: true,
    pruneSessionInterval: PRUNE_INTERVAL_S,
    errorLog: () => {
      deps.log.warn('expired sessions cannot be pruned');
    },
  });
  const middleware = expressSession({
    name: deps.cookieName,
    secret: deps.secret,
    store: rows,
    resave: false,
    saveUninitialized: false,
    rolling: false,
    cookie: { ...cookie, maxAge: LIFETIME_MS },
  });

  /** @returns the id of the session that the request names; undefined for none. @throws what `refuseSeveral` throws. */
  async function findId(request: Request): Promise<string | undefined> {
    const named = deps.sessionCookie.listSessionIds(request);
    const valid = named.length > 1 ? [...(await deps.store.listValidSessionIds(named))] : named;
    if (valid.length > 1)
      throw new AppError(
        'validation_failed',
        `The request has ${deps.cookieName} cookies of ${valid.length} sessions. Sign out, then sign in again.`,
      );
    return valid[0];
  }

  async function load(request: Request, response: Response): Promise<void> {
    // If PUBLIC_URL is https, so is the browser's connection, even if the proxy connects to the app with http.
    // Without this, express-session silently sends no cookie behind a proxy that is not trusted.
    if (deps.secure) Object.defineProperty(request, 'secure', { value: true, configurable: true });
    // The middleware reads the first cookie of the name only.
    deps.sessionCookie.keepOnly(request, await findId(request));
    await toPromise((done) => {
      middleware(request, response, done);
    });
  }

  return {
    refuseSeveral: async (request) => void (await findId(request)),
    async find(request) {
      const id = await findId(request);
      const content = id === undefined ? undefined : await deps.store.findUsedSession(id);
      return id === undefined || content === undefined ? undefined : { ...content, id };
    },
    async replace(request, response, content) {
      await load(request, response);
      await toPromise((done) => {
        request.session.regenerate(done);
      });
      Object.assign(request.session, content);
      await toPromise((done) => {
        request.session.save(done);
      });
      preventSecondSave(request.session);
      return { ...content, id: request.sessionID };
    },
    discard: (request) =>
      toPromise((done) => {
        request.session.destroy(done);
      }),
    clearCookie: (response) => void response.clearCookie(deps.cookieName, cookie),
    close: () => {
      rows.close();
    },
  };
}

/**
 * The library saves a regenerated session a second time when the response ends. By then a logout may have deleted
 * the row, and the save would restore it.
 */
function preventSecondSave(session: Request['session']): void {
  const save = (done?: (error?: unknown) => void) => {
    done?.();
    return session;
  };
  Object.defineProperty(session, 'save', { value: save });
}

/** Turns a callback of the session library into a promise. Errors of its store are database errors. */
function toPromise(start: (done: (error?: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => {
      if (error === undefined || error === null) resolve();
      else reject(databaseUnavailable(error));
    });
  });
}
