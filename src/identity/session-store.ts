import { z } from 'zod';
import { getUserId, OwnerText, userOwner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import { SessionContent } from './schema.ts';

/** Identifies a sign-in, to compare it with logout markers. */
export interface SignInRef {
  userId: string;
  keycloakSessionId: string | null;
  /** Keycloak's clock, epoch ms. */
  signedInAtMs: number;
}

const SessionIdRow = z.object({ sid: z.string() });
const ContentRow = z.object({ sess: z.unknown() });

/** NOTIFY channel for deleted sessions, without content. A trigger of the table notifies. */
export const SESSIONS_CHANNEL = 'ops_center_sessions';

/** Session rows, logout markers and used logout tokens. Row ids are secrets and must never be logged. */
export type SessionStore = ReturnType<typeof createSessionStore>;

/** Must be longer than a pending sign-in and than the lifetime of an access token. */
const MARKER_LIFETIME = '1 hour';

export function createSessionStore(database: Database) {
  return {
    ...createSessionRows(database),
    ...createSessionDeletions(database),
    ...createLogoutMarkers(database),
    ...createSeenLogoutTokens(database),

    /** Deletes expired markers and token ids. */
    async prune(): Promise<void> {
      await database.run('DELETE FROM logout_markers WHERE expires_at < now()');
      await database.run('DELETE FROM logout_token_ids WHERE expires_at < now()');
    },
  };
}

function createSessionRows(database: Database) {
  return {
    /** As `findSession`, for a request with the session: also writes the time of its use, at most once a minute. */
    async findUsedSession(sessionId: string): Promise<SessionContent | undefined> {
      const [row] = await database.rows(
        ContentRow,
        `WITH used AS (
           UPDATE sessions SET last_used_at = now()
           WHERE sid = $1 AND expire > now() AND last_used_at < now() - interval '1 minute')
         SELECT sess FROM sessions WHERE sid = $1 AND expire > now()`,
        [sessionId],
      );
      return SessionContent.safeParse(row?.sess).data;
    },

    /** Reads the session from its row; undefined when it has ended, or its content is not of this version. */
    async findSession(sessionId: string): Promise<SessionContent | undefined> {
      const [row] = await database.rows(
        ContentRow,
        'SELECT sess FROM sessions WHERE sid = $1 AND expire > now()',
        [sessionId],
      );
      return SessionContent.safeParse(row?.sess).data;
    },

    /** Updates the tokens of an existing row; false if the row does not exist. Never inserts a row. */
    async replaceTokens(
      sessionId: string,
      change: { tokens: string; refreshAtMs: number },
    ): Promise<boolean> {
      const changed = await database.run('UPDATE sessions SET sess = sess || $2::jsonb WHERE sid = $1', [
        sessionId,
        JSON.stringify(change),
      ]);
      return changed > 0;
    },

    /** Returns those of the given sessions that exist and have not expired. */
    async listValidSessionIds(sessionIds: string[]): Promise<Set<string>> {
      const rows = await database.rows(
        SessionIdRow,
        'SELECT sid FROM sessions WHERE sid = ANY($1) AND expire > now()',
        [sessionIds],
      );
      return new Set(rows.map((row) => row.sid));
    },

    /** Returns those of the given users that have a session. */
    async listUsersWithSession(userIds: string[]): Promise<string[]> {
      const rows = await database.rows(
        z.object({ owner: OwnerText }),
        'SELECT DISTINCT owner FROM sessions WHERE owner = ANY($1)',
        [userIds.map(userOwner)],
      );
      return rows.map(({ owner }) => getUserId(owner));
    },
  };
}

const SIGNED_IN_AT_MS = "(sess ->> 'signedInAtMs')::double precision";

/** Each method returns the ids of the deleted rows. */
function createSessionDeletions(database: Database) {
  async function deleteWhere(condition: string, values: unknown[]): Promise<string[]> {
    const rows = await database.rows(
      SessionIdRow,
      `DELETE FROM sessions WHERE ${condition} RETURNING sid`,
      values,
    );
    return rows.map((row) => row.sid);
  }

  return {
    /**
     * Deletes all but the newest sessions of a user. Called after each insert, so that of concurrent sign-ins the last
     * one finds the rows of all.
     */
    deleteOldestSessions: (userId: string, maxSessions: number) =>
      deleteWhere('sid IN (SELECT sid FROM sessions WHERE owner = $1 ORDER BY expire DESC, sid OFFSET $2)', [
        userOwner(userId),
        maxSessions,
      ]),
    deleteSession: (sessionId: string) => deleteWhere('sid = $1', [sessionId]),
    deleteUserSessions: (userId: string, notAfterMs: number) =>
      deleteWhere(`owner = $1 AND ${SIGNED_IN_AT_MS} <= $2`, [userOwner(userId), notAfterMs]),
    deleteAllSessions: (notAfterMs: number) => deleteWhere(`${SIGNED_IN_AT_MS} <= $1`, [notAfterMs]),
    deleteKeycloakSessions: (ids: string[], notAfterMs: number) =>
      deleteWhere(`keycloak_session_id = ANY($1) AND ${SIGNED_IN_AT_MS} <= $2`, [ids, notAfterMs]),
  };
}

function createLogoutMarkers(database: Database) {
  /** Marks sign-ins up to a time as ended; `Infinity` for all. With several marks, the latest time applies. */
  async function mark(
    kind: 'user' | 'keycloak_session',
    values: string[],
    notAfterMs: number,
  ): Promise<void> {
    await database.run(
      `INSERT INTO logout_markers (kind, value, logged_out_at, expires_at)
       SELECT $1, value, to_timestamp($3::double precision / 1000), now() + interval '${MARKER_LIFETIME}'
       FROM unnest($2::text[]) AS value
       ON CONFLICT (kind, value) DO UPDATE SET expires_at = excluded.expires_at,
         logged_out_at = greatest(logout_markers.logged_out_at, excluded.logged_out_at)`,
      [kind, [...new Set(values)].sort(), notAfterMs],
    );
  }

  return {
    markUser: (userId: string, notAfterMs: number) => mark('user', [userId], notAfterMs),
    /** Stored as the user id `*`, which is never an id in Keycloak. */
    markAllUsers: (notAfterMs: number) => mark('user', ['*'], notAfterMs),
    markKeycloakSessions: (ids: string[], notAfterMs: number) => mark('keycloak_session', ids, notAfterMs),

    /** Returns true if a logout marker covers the sign-in. */
    async isLoggedOut(signIn: SignInRef): Promise<boolean> {
      const found = await database.rows(
        z.object({}),
        `SELECT FROM logout_markers
         WHERE expires_at > now() AND logged_out_at >= to_timestamp($3::double precision / 1000)
           AND ((kind = 'keycloak_session' AND value = $2) OR (kind = 'user' AND value IN ($1, '*')))
         LIMIT 1`,
        [signIn.userId, signIn.keycloakSessionId, signIn.signedInAtMs],
      );
      return found.length > 0;
    },
  };
}

function createSeenLogoutTokens(database: Database) {
  return {
    /** Stores the id of a logout token; false if it is already stored. */
    async markLogoutTokenSeen(jti: string, expiresAtMs: number): Promise<boolean> {
      const added = await database.run(
        `INSERT INTO logout_token_ids (jti, expires_at) VALUES ($1, to_timestamp($2::double precision / 1000))
         ON CONFLICT (jti) DO NOTHING`,
        [jti, expiresAtMs],
      );
      return added > 0;
    },
  };
}
