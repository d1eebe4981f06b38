import { isDeepStrictEqual } from 'node:util';
import type { Principal, User } from '../http/principal.ts';
import type { Identity } from '../identity/service.ts';
import { AppError, isAppError } from '../lib/errors.ts';
import { getUserId } from '../lib/owner.ts';
import type { ServerOpener } from '../servers/service.ts';
import { BYOK_TIER, isTierAtLeast } from '../config/tiers.ts';
import type { OpenServer } from '../servers/service.ts';
import type { Limits } from '../runners/runner.ts';
import { createRunExit, type RunExit } from './events.ts';
import type { PreparedRun } from './executor.ts';
import type { ActiveRun } from './active-run.ts';
import type { RunsStore } from './runs-store.ts';
import { toJob, LIMIT_NAMES, toLimits } from './schema.ts';
import { listServerVersions } from './server-versions.ts';
import { type RunEncryption, type RunSignIn } from './run-encryption.ts';

export interface PrepareRunDeps {
  store: Pick<RunsStore, 'findWhole' | 'noteVersions'>;
  seals: RunEncryption;
  identity: Pick<Identity, 'userCache' | 'isSignInValid'>;
  servers: Pick<ServerOpener, 'openForUse'>;
}

/** Makes a run ready whose turn has come in the queue: who asked and where is looked at again. */
export type PrepareRun = (run: ActiveRun) => Promise<PreparedRun | { exit: RunExit }>;

export function createPrepareRun({ store, seals, identity, servers }: PrepareRunDeps): PrepareRun {
  /** @throws AppError that says why it may not run any more. */
  async function authorize({ principal, owner }: ActiveRun): Promise<User> {
    const user = await identity.userCache.findUser(getUserId(owner));
    if (user === undefined || principal === null || !(await identity.isSignInValid(principal)))
      throw new AppError('unauthenticated', 'The sign-in that this run was started under has ended.');
    if (!isTierAtLeast(user.tier, BYOK_TIER))
      throw new AppError('tier_required', `Running code needs the ${BYOK_TIER} tier or higher.`);
    return user;
  }

  return async (run) => {
    try {
      const row = await store.findWhole(run);
      if (row === undefined || row.cancel_requested) return { exit: createRunExit('cancelled', null) };
      const opened = seals.decryptRun(run, row.sealed);
      if (opened === undefined)
        throw new AppError('key_undecryptable', 'What was to be run does not decrypt. Run it again.');
      const user = await authorize(run);
      const server = await servers.openForUse(user.id, row.server_id);
      const limits = toLimits(opened.asked);
      assertLimitsSupported(server, limits);
      const versions = listServerVersions(server.target);
      const isOurs =
        isDeepStrictEqual(versions, row.server_versions) || (await store.noteVersions(run, versions));
      if (!isOurs) return { exit: createRunExit('lost', null) };
      return { server, job: toJob(run.id, opened.asked), limits };
    } catch (error) {
      if (!isAppError(error)) throw error;
      const isRefused = error.code === 'unauthenticated' || error.code === 'tier_required';
      return { exit: createRunExit(isRefused ? 'cancelled' : 'infrastructure', error.detail) };
    }
  };
}

/** @throws AppError `limit_unsupported` (422) naming the limits that the server cannot enforce. */
export function assertLimitsSupported({ runner, target, name }: OpenServer, limits: Limits): void {
  const names = runner.unenforceableLimits(target.config, limits).map((limit) => LIMIT_NAMES[limit]);
  if (names.length === 0) return;
  throw new AppError('limit_unsupported', `${name} cannot enforce ${names.join(', ')}. Leave it out.`, {
    errors: names.map((limit) => ({ path: `limits.${limit}`, message: 'cannot be enforced on this server' })),
  });
}

/** Who started a run, as far as its ending with the sign-in needs it. */
export function toPrincipal(
  userId: string,
  { sessionId, keycloakSessionId, signedInAtMs }: RunSignIn,
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
