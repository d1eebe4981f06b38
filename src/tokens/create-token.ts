import { requireRecentSignIn } from '../http/authorization.ts';
import type { Principal } from '../http/principal.ts';
import { writeAuditEvent } from '../audit/service.ts';
import { AppError } from '../lib/errors.ts';
import { userOwner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { CreateToken, TokenCreated } from './schema.ts';
import { createTokenText, hashToken, toShownPrefix } from './token-format.ts';
import { countUnexpiredTokens, deleteOldestExpiredTokens, insertToken, lockTokens } from './tokens-store.ts';

/** Exact, because all additions of an owner are made under one lock. */
const MAX_TOKENS = 50;
/** Expired tokens that stay in the list. Without a limit, tokens of a second's life would fill the database. */
const MAX_EXPIRED_TOKENS = 50;

/**
 * Creates a token. The result is the only place where it is shown.
 * @throws AppError `reauth_required` (403) without a recent sign-in; `token_limit` (409) when the user has 50 tokens that have not expired; `database_unavailable` (503).
 */
export async function createToken(
  database: Database,
  principal: Principal,
  id: string,
  body: CreateToken,
  requestId: string,
): Promise<TokenCreated> {
  const owner = userOwner(principal.user.id);
  const token = createTokenText();
  const view = await database.withOwner(owner, async (sql) => {
    await lockTokens(sql, owner);
    if ((await countUnexpiredTokens(sql)) >= MAX_TOKENS) throw tooManyTokens();
    requireRecentSignIn(principal);
    await deleteOldestExpiredTokens(sql, MAX_EXPIRED_TOKENS);
    await writeAuditEvent(sql, {
      owner,
      actor: owner,
      action: 'token.created',
      object: `token:${id}`,
      requestId,
    });
    return insertToken(sql, {
      ...{ id, owner, sha256: hashToken(token), prefix: toShownPrefix(token) },
      ...{ name: body.name, scopes: body.scopes, models: body.models ?? null, keyIds: body.key_ids ?? null },
      expiresAt: body.expires_at ?? null,
    });
  });
  return { ...view, token };
}

function tooManyTokens(): AppError {
  return new AppError(
    'token_limit',
    `You have ${MAX_TOKENS} tokens that have not expired, which is the maximum. Revoke one first.`,
  );
}
