import { isDeepStrictEqual } from 'node:util';
import type { Principal, User } from '../http/principal.ts';
import type { Identity } from '../identity/service.ts';
import { AppError, isAppError } from '../lib/errors.ts';
import { getUserId } from '../lib/owner.ts';
import type { OpenServer, ServerOpener } from '../servers/service.ts';
import { BYOK_TIER, isTierAtLeast } from '../config/tiers.ts';
import { listServerVersions, type Job, type Limits } from '../runners/runner.ts';
import { createRunExit, type NumberedEvent, type RunExit } from './events.ts';
import type { RunsStore } from './runs-store.ts';
import { toJob, toLimits } from './schema.ts';
import type { RunEncryption, RunRef, RunSignIn } from './run-encryption.ts';

export interface RunPreparationDeps {
  store: Pick<RunsStore, 'findRunWithProgram' | 'readBatches' | 'saveServerVersions'>;
  encryption: RunEncryption;
  identity: Pick<Identity, 'userCache' | 'isSignInValid'>;
  servers: Pick<ServerOpener, 'openForRun'>;
}

/** Everything that a run needs to start. */
export interface PreparedRun {
  server: OpenServer;
  job: Job;
  limits: Limits;
}

/** A claimed run of a process that has ended, as stored. */
export interface RestoredRun {
  /** Null when the stored run does not decrypt. */
  principal: Principal | null;
  events: NumberedEvent[];
}

/** A run with the sign-in that started it; null when the stored run does not decrypt. */
type SignedInRun = RunRef & { readonly principal: Principal | null };

/** Reads what is stored of a queued run, before it starts. */
export interface RunPreparation {
  /** Prepares a claimed run for its start. The user's right, the sign-in and the server are checked again. */
  prepare: (run: SignedInRun) => Promise<PreparedRun | { exit: RunExit }>;
  /**
   * @returns undefined when the run has ended since its claim.
   * @throws AppError `database_unavailable` (503).
   */
  restore: (run: RunRef) => Promise<RestoredRun | undefined>;
}

const MAX_RESTORED_BATCHES = 1_000;

export function createRunPreparation({
  store,
  encryption,
  identity,
  servers,
}: RunPreparationDeps): RunPreparation {
  /** @throws AppError with the reason why the run is no longer permitted. */
  async function authorize({ principal, owner }: SignedInRun): Promise<User> {
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

  async function prepare(run: SignedInRun): Promise<PreparedRun | { exit: RunExit }> {
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
      const limits = toLimits(decrypted.request);
      const server = await servers.openForRun(user.id, row.server_id, limits);
      if (run.principal !== null) assertMayRun(run.principal, server);
      const versions = listServerVersions(server.target);
      const isHeld =
        isDeepStrictEqual(versions, row.server_versions) || (await store.saveServerVersions(run, versions));
      if (!isHeld) return { exit: createRunExit('lost', null) };
      return { server, job: toJob(run.id, decrypted.request), limits };
    } catch (error) {
      if (!isAppError(error)) throw error;
      const isRefused = ['unauthenticated', 'tier_required', 'scope_required'].includes(error.code);
      return { exit: createRunExit(isRefused ? 'cancelled' : 'infrastructure', error.detail) };
    }
  }

  async function restore(run: RunRef): Promise<RestoredRun | undefined> {
    const row = await store.findRunWithProgram(run);
    if (row?.status !== 'running') return undefined;
    const decrypted = encryption.decryptRun(run, row.sealed);
    const batches = await store.readBatches(run, 0, MAX_RESTORED_BATCHES);
    return {
      principal: decrypted === undefined ? null : toPrincipal(getUserId(run.owner), decrypted.signIn),
      events: batches.flatMap((batch) => encryption.decryptEvents(run, batch) ?? []),
    };
  }

  return { prepare, restore };
}

/**
 * A token runs code only on servers whose owner allows it.
 * @throws AppError `scope_required` (403).
 */
export function assertMayRun({ token }: Principal, { name, tokenRuns }: OpenServer): void {
  if (token === null || tokenRuns) return;
  throw new AppError(
    'scope_required',
    `“${name}” runs no code for tokens. Set token_runs: true on this server, with a session.`,
  );
}

/** The principal that started a run, reduced to what ends the run together with the sign-in. */
function toPrincipal(
  userId: string,
  { sessionId, keycloakSessionId, tokenId, signedInAtMs }: RunSignIn,
): Principal {
  const token = tokenId === null ? null : { id: tokenId, models: null, keyIds: null };
  const withoutSession = token === null ? 'bearer' : 'token';
  return {
    user: { id: userId, username: '', email: null, name: null, tier: 'free' },
    credential: sessionId === null ? withoutSession : 'session',
    scopes: new Set(),
    token,
    sessionId,
    keycloakSessionId,
    ...(signedInAtMs === undefined ? {} : { signedInAtMs }),
  };
}
