import { z } from 'zod';
import { writeAuditEvent } from '../audit/service.ts';
import type { Principal } from '../http/principal.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { notFound } from '../lib/errors.ts';
import { userOwner } from '../lib/owner.ts';
import type { Database, Sql } from '../lib/postgres/database.ts';
import type { ActiveWork } from './active-work.ts';
import type { OidcClient } from './oidc.ts';
import { SessionContent, type SessionsEnded, type SessionView } from './schema.ts';
import type { SessionStore } from './session-store.ts';
import { decryptSessionTokens } from './session-tokens.ts';

/** The sessions of the signed-in user. */
export interface UserSessions {
  /** The last used one first. @throws AppError `database_unavailable` (503). */
  list(principal: Principal): Promise<SessionView[]>;
  /**
   * Ends the session with this id and all others of its Keycloak session, and that one too.
   * @throws AppError `not_found` (404), also for another user's session; `database_unavailable` (503).
   */
  end(principal: Principal, id: string, requestId: string): Promise<EndedSessions>;
  /** Ends all sessions of the user, and the Keycloak sessions behind them. @throws AppError `database_unavailable` (503). */
  endAll(principal: Principal, requestId: string): Promise<EndedSessions>;
}

interface EndedSessions {
  /** Whether the session of the request is one of them. */
  isCurrentEnded: boolean;
  result: SessionsEnded;
}

export interface UserSessionsDeps {
  database: Database;
  keyring: Keyring;
  store: Pick<SessionStore, 'markKeycloakSessions'>;
  activeWork: Pick<ActiveWork, 'endSession'>;
  oidc: Pick<OidcClient, 'endSession'>;
}

/** A session row of the transaction's owner. `sid` is the secret of its cookie. */
const OwnRow = z
  .object({
    sid: z.string(),
    id: z.string(),
    created_at: z.date(),
    last_used_at: z.date(),
    sess: SessionContent,
  })
  .transform(({ sess, ...row }) => ({ ...row, content: sess }));
type OwnSession = z.output<typeof OwnRow>;

const COLUMNS = 'sid, id, created_at, last_used_at, sess';
const OWN_ROWS = 'owner = current_owner() AND expire > now()';

export function createUserSessions({
  database,
  keyring,
  store,
  activeWork,
  oidc,
}: UserSessionsDeps): UserSessions {
  /** @returns false if Keycloak confirmed the end with none of the refresh tokens of these sessions, the newest first. */
  async function endKeycloakSession(sessions: readonly OwnSession[]): Promise<boolean> {
    const newestFirst = sessions.toSorted((a, b) => b.content.refreshAtMs - a.content.refreshAtMs);
    for (const { content } of newestFirst) {
      const tokens = decryptSessionTokens(keyring, content, content.tokens);
      if (tokens !== undefined && (await oidc.endSession(tokens.refreshToken))) return true;
    }
    return false;
  }

  /**
   * In the order that `logout.ts` explains: the marker, the rows, the work. Keycloak is last, so that the sessions end
   * here also while it is unavailable.
   */
  async function endKeycloakSessionsOf(
    { user, sessionId }: Principal,
    selected: readonly OwnSession[],
    requestId: string,
  ): Promise<EndedSessions> {
    const keycloakSessionIds = [...new Set(selected.map(({ content }) => content.keycloakSessionId))];
    // The app's clock can be behind Keycloak's. The marker must still cover the sessions.
    const notAfterMs = Math.max(Date.now(), ...selected.map(({ content }) => content.signedInAtMs));
    await store.markKeycloakSessions(keycloakSessionIds, notAfterMs);
    const owner = userOwner(user.id);
    const ended = await database.withOwner(owner, async (sql) => {
      const deleted = await deleteOwnSessions(sql, keycloakSessionIds);
      for (const { id } of deleted) {
        const object = `session:${id}`;
        await writeAuditEvent(sql, { owner, actor: owner, action: 'session.ended', object, requestId });
      }
      return deleted;
    });
    for (const { sid } of ended) activeWork.endSession(sid);
    const byKeycloakSession = Map.groupBy(ended, ({ content }) => content.keycloakSessionId);
    const results = await Promise.all([...byKeycloakSession.values()].map(endKeycloakSession));
    return {
      isCurrentEnded: ended.some(({ sid }) => sid === sessionId),
      result: toResult(
        ended.length,
        results.every((isEnded) => isEnded),
      ),
    };
  }

  return {
    async list({ user, sessionId }) {
      const sessions = await database.withOwner(userOwner(user.id), listOwnSessions);
      return sessions.map(({ sid, id, content, ...row }) => ({
        id,
        created_at: row.created_at.toISOString(),
        last_used_at: row.last_used_at.toISOString(),
        client: content.client,
        current: sid === sessionId,
      }));
    },
    async end(principal, id, requestId) {
      const sessions = await database.withOwner(userOwner(principal.user.id), listOwnSessions);
      const selected = sessions.filter((session) => session.id === id);
      if (selected.length === 0) throw notFound('This session');
      return endKeycloakSessionsOf(principal, selected, requestId);
    },
    async endAll(principal, requestId) {
      const sessions = await database.withOwner(userOwner(principal.user.id), listOwnSessions);
      return endKeycloakSessionsOf(principal, sessions, requestId);
    },
  };
}

function toResult(ended: number, isKeycloakEnded: boolean): SessionsEnded {
  const count = `${ended} ${ended === 1 ? 'session' : 'sessions'} ended.`;
  const message = isKeycloakEnded
    ? count
    : `${count} Keycloak did not confirm the end of its own sessions: end them in your account there.`;
  return { message, ended, keycloak_ended: isKeycloakEnded };
}

function listOwnSessions(sql: Sql): Promise<OwnSession[]> {
  return sql.rows(
    OwnRow,
    `SELECT ${COLUMNS} FROM sessions WHERE ${OWN_ROWS} ORDER BY last_used_at DESC, created_at DESC, id`,
  );
}

function deleteOwnSessions(sql: Sql, keycloakSessionIds: readonly string[]): Promise<OwnSession[]> {
  return sql.rows(
    OwnRow,
    `DELETE FROM sessions WHERE ${OWN_ROWS} AND keycloak_session_id = ANY($1) RETURNING ${COLUMNS}`,
    [keycloakSessionIds],
  );
}
