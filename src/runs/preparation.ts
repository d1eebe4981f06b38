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
  store: Pick<RunsStore, 'findRunWithProgram' | 'saveServerVersions'>;
  encryption: RunEncryption;
  identity: Pick<Identity, 'userCache' | 'isSignInValid'>;
  servers: Pick<ServerOpener, 'openForRun'>;
}

/** Prepares a queued run for its start. The user's right, the sign-in and the server are checked again. */
export type PrepareRun = (run: ActiveRun) => Promise<PreparedRun | { exit: RunExit }>;

export function createPrepareRun({ store, encryption, identity, servers }: PrepareRunDeps): PrepareRun {
  /** @throws AppError with the reason why the run is no longer permitted. */
  async function authorize({ principal, owner }: ActiveRun): Promise<User> {
    const user = await identity.userCache.findUser(getUserId(owner));
    if (user === undefined || principal === null || !(await identity.isSignInValid(principal)))
      throw new AppError(
        'unauthenticated',
        'The sign-in that started this run has ended. Sign in and run it again.',
      );
    if (!isTierAtLeast(user.tier, BYOK_TIER))
      throw new AppError('tier_required', `Running code needs the ${BYOK_TIER} tier or higher.`);
    return user;
  }

  return async (run) => {
    try {
      const row = await store.findRunWithProgram(run);
      if (row === undefined || row.cancel_requested) return { exit: createRunExit('cancelled', null) };
      const decrypted = encryption.decryptRun(run, row.sealed);
      if (decrypted === undefined)
        throw new AppError(
          'key_undecryptable',
          'The stored program of this run does not decrypt. Run it again.',
        );
      const user = await authorize(run);
      const server = await servers.openForRun(user.id, row.server_id);
      const limits = toLimits(decrypted.request);
      assertLimitsSupported(server, limits);
      const versions = listServerVersions(server.target);
      const isHeld =
        isDeepStrictEqual(versions, row.server_versions) || (await store.saveServerVersions(run, versions));
      if (!isHeld) return { exit: createRunExit('lost', null) };
      return { server, job: toJob(run.id, decrypted.request), limits };
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

/** The principal that started a run, reduced to what ends the run together with the sign-in. */
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
