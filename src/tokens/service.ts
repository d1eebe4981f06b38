import type { Principal } from '../http/principal.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { Log } from '../lib/log.ts';
import { userOwner, type Owner } from '../lib/owner.ts';
import { createToken } from './create-token.ts';
import { revokeAllTokens, revokeToken } from './revoke-token.ts';
import type { CreateToken, TokenCreated, TokenView } from './schema.ts';
import { createTokenReader, type TokenReader, type TokenReaderDeps } from './token-reader.ts';
import { createTokenUseWriter, type TokenUseWriter } from './token-use.ts';
import { listTokenOwners, listTokens } from './tokens-store.ts';

export { hasTokenPrefix } from './token-format.ts';
export { readClient } from './token-use.ts';

export interface TokenServiceDeps extends TokenReaderDeps {
  log: Log;
}

/** What the authenticator and the check of active work need. */
export interface TokenAuthentication
  extends Pick<TokenReader, 'find' | 'listValidIds' | 'onDeleted'>, Pick<TokenUseWriter, 'track'> {}

/** The personal tokens of users. */
export interface TokenService extends TokenAuthentication {
  /** See {@link createToken}. */
  create(principal: Principal, id: string, body: CreateToken, requestId: string): Promise<TokenCreated>;
  /** In the order of creation, expired ones too. */
  list(userId: string): Promise<TokenView[]>;
  /** See {@link revokeToken}. */
  revoke(userId: string, id: string, requestId: string): Promise<void>;
  /** Revokes all tokens of a deleted user. */
  removeUser(userId: string, requestId: string, actor: string): Promise<void>;
  /** Resolves when all pending writes of last uses have ended. */
  flush(): Promise<void>;
}

export function createTokenService(deps: TokenServiceDeps): TokenService {
  const { database } = deps;
  const { applyDeletion, ...reader } = createTokenReader(deps);
  return {
    ...reader,
    ...createTokenUseWriter(deps),
    create: (principal, id, body, requestId) => createToken(database, principal, id, body, requestId),
    list: (userId) => database.withOwner(userOwner(userId), listTokens),
    async revoke(userId, id, requestId) {
      await revokeToken(database, userId, id, requestId);
      applyDeletion(id);
    },
    async removeUser(userId, requestId, actor) {
      const ids = await revokeAllTokens(database, userOwner(userId), requestId, actor);
      for (const id of ids) applyDeletion(id);
    },
  };
}

/** The tokens of all owners, for commands. */
export interface TokenData {
  listOwners(): Promise<Owner[]>;
  /** Revokes all tokens of an owner. @param actor for the audit trail. */
  remove(owner: Owner, requestId: string, actor: string): Promise<void>;
}

export function createTokenData({ database }: { database: Database }): TokenData {
  return {
    listOwners: () => listTokenOwners(database),
    async remove(owner, requestId, actor) {
      await revokeAllTokens(database, owner, requestId, actor);
    },
  };
}
