import { isDeepStrictEqual } from 'node:util';
import type { Principal, User } from '../http/principal.ts';
import type { Identity } from '../identity/service.ts';
import { AppError, isAppError } from '../lib/errors.ts';
import { getUserId } from '../lib/owner.ts';
import type { ServerUse } from '../servers/service.ts';
import { BYOK_TIER, reachesTier } from '../tiers.ts';
import type { OpenServer } from '../servers/service.ts';
import type { Limits } from '../runners/runner.ts';
import { exitWithout, type RunExit } from './events.ts';
import type { Prepared } from './executor.ts';
import type { LiveRun } from './live-run.ts';
import type { RunsStore } from './runs-store.ts';
import { jobOf, LIMIT_NAMES, limitsOf } from './schema.ts';
import { versionsOf } from './server-versions.ts';
import { type RunSeals, type SignIn } from './sealed.ts';

export interface PreparationDeps {
  store: Pick<RunsStore, 'findWhole' | 'noteVersions'>;
  seals: RunSeals;
  identity: Pick<Identity, 'directory' | 'isStanding'>;
  servers: Pick<ServerUse, 'openForUse'>;
}

/** Makes a run ready whose turn has come in the queue: who asked and where is looked at again. */
export type Prepare = (run: LiveRun) => Promise<Prepared | { exit: RunExit }>;

export function createPreparation({ store, seals, identity, servers }: PreparationDeps): Prepare {
  /** @throws AppError that says why it may not run any more. */
  async function authorize({ principal, owner }: LiveRun): Promise<User> {
    const user = await identity.directory.findUser(getUserId(owner));
    if (user === undefined || principal === null || !(await identity.isStanding(principal)))
      throw new AppError('unauthenticated', 'The sign-in that this run was started under has ended.');
    if (!reachesTier(user.tier, BYOK_TIER))
      throw new AppError('tier_required', `Running code needs the ${BYOK_TIER} tier or higher.`);
    return user;
  }

  return async (run) => {
    try {
      const row = await store.findWhole(run);
      if (row === undefined || row.cancel_requested) return { exit: exitWithout('cancelled', null) };
      const opened = seals.openRun(run, row.sealed);
      if (opened === undefined)
        throw new AppError('key_undecryptable', 'What was to be run does not decrypt. Run it again.');
      const user = await authorize(run);
      const server = await servers.openForUse(user.id, row.server_id);
      const limits = limitsOf(opened.asked);
      refuseUnenforceable(server, limits);
      const versions = versionsOf(server.target);
      const isOurs =
        isDeepStrictEqual(versions, row.server_versions) || (await store.noteVersions(run, versions));
      if (!isOurs) return { exit: exitWithout('lost', null) };
      return { server, job: jobOf(run.id, opened.asked), limits };
    } catch (error) {
      if (!isAppError(error)) throw error;
      const isRefused = error.code === 'unauthenticated' || error.code === 'tier_required';
      return { exit: exitWithout(isRefused ? 'cancelled' : 'infrastructure', error.detail) };
    }
  };
}

/** @throws AppError `limit_unsupported` (422) naming the limits that the server cannot enforce. */
export function refuseUnenforceable({ runner, target, name }: OpenServer, limits: Limits): void {
  const names = runner.unenforceable(target.config, limits).map((limit) => LIMIT_NAMES[limit]);
  if (names.length === 0) return;
  throw new AppError('limit_unsupported', `${name} cannot enforce ${names.join(', ')}. Leave it out.`, {
    errors: names.map((limit) => ({ path: `limits.${limit}`, message: 'cannot be enforced on this server' })),
  });
}

/** Who started a run, as far as its ending with the sign-in needs it. */
export function principalOf(
  userId: string,
  { sessionId, keycloakSessionId, signedInAtMs }: SignIn,
): Principal {
  return {
    user: { id: userId, username: '', email: null, name: null, tier: 'free' },
    credential: sessionId === null ? 'bearer' : 'session',
    scopes: new Set(),
    sessionId,
    keycloakSessionId,
    ...(signedInAtMs === undefined ? {} : { signedInAtMs }),
  };
}
