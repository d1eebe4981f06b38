import connectPgSimple from 'connect-pg-simple';
import type { Request, Response } from 'express';
import expressSession from 'express-session';
import type { Database } from '../lib/postgres/database.ts';
import { databaseUnavailable } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { SessionContent, type StoredSession } from './schema.ts';

declare module 'express-session' {
  interface SessionData extends Partial<SessionContent> {}
}

/** Browser sessions: a signed cookie that names a row in Postgres. */
export interface Sessions {
  /** The session that the request's cookie names, if it stands. @throws AppError `database_unavailable`. */
  find(request: Request, response: Response): Promise<StoredSession | undefined>;
  /** Ends whatever session the cookie names and makes a new one, with a new id. The response gets its cookie. */
  replace(request: Request, response: Response, content: SessionContent): Promise<StoredSession>;
  /** Undoes `replace`: the row goes, and the response gets no cookie even if the database fails now. */
  discard(request: Request): Promise<void>;
  /** Takes the cookie away. */
  clearCookie(response: Response): void;
  /** Stops the pruning of old rows. */
  close(): void;
}

export interface SessionsDeps {
  database: Database;
  secret: string;
  cookieName: string;
  /** Whether cookies are Secure: all but local mode. */
  secure: boolean;
  log: Log;
}

const LIFETIME_MS = 12 * 60 * 60_000;
const PRUNE_INTERVAL_S = 15 * 60;

/**
 * Builds the sessions on express-session. Its middleware runs only where a session is asked for, so public
 * pages cost no query. A session is written once, when it is made: the middleware would otherwise insert a row
 * again that a logout has just deleted. Refreshed tokens go through SessionStore.replaceTokens.
 */
export function createSessions(deps: SessionsDeps): Sessions {
  const cookie = { httpOnly: true, sameSite: 'lax', path: '/', secure: deps.secure } as const;
  const store = new (connectPgSimple(expressSession))({
    pool: deps.database.pool,
    tableName: 'sessions',
    createTableIfMissing: false,
    disableTouch: true,
    pruneSessionInterval: PRUNE_INTERVAL_S,
    errorLog: () => {
      deps.log.warn('old sessions could not be pruned');
    },
  });
  const middleware = expressSession({
    name: deps.cookieName,
    secret: deps.secret,
    store,
    resave: false,
    saveUninitialized: false,
    rolling: false,
    cookie: { ...cookie, maxAge: LIFETIME_MS },
  });

  async function load(request: Request, response: Response): Promise<void> {
    // The browser's connection is https when PUBLIC_URL is, whatever the proxy's connection to us is; without
    // this, express-session silently keeps the cookie back behind a proxy that is not trusted.
    if (deps.secure) Object.defineProperty(request, 'secure', { value: true, configurable: true });
    await toPromise((done) => {
      middleware(request, response, done);
    });
  }

  function read(id: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      store.get(id, (error, found) => {
        if (error) reject(databaseUnavailable(error));
        else resolve(found);
      });
    });
  }

  return {
    async find(request, response) {
      // A request that asks a second time wants to know whether its session still stands, and the library
      // would answer with what it read first.
      const isLoaded = (request.session as unknown) !== undefined;
      await load(request, response);
      const content = SessionContent.safeParse(isLoaded ? await read(request.sessionID) : request.session);
      return content.success ? { ...content.data, id: request.sessionID } : undefined;
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
      store.close();
    },
  };
}

/**
 * The library does not notice that a regenerated session was saved, and saves it once more when the answer
 * ends: by then a logout may have deleted the row, and the session would be back.
 */
function preventSecondSave(session: Request['session']): void {
  const save = (done?: (error?: unknown) => void) => {
    done?.();
    return session;
  };
  Object.defineProperty(session, 'save', { value: save });
}

/** Turns a callback of the session library into a promise; what its store reports is the database. */
function toPromise(start: (done: (error?: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => {
      if (error === undefined || error === null) resolve();
      else reject(databaseUnavailable(error));
    });
  });
}
