import { createHmac, createSecretKey } from 'node:crypto';
import type { Request, Response } from 'express';
import { z, type ZodType } from 'zod';
import type { Principal } from '../http/principal.ts';
import { createPoller } from '../lib/async/poller.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { AppError, isAppError } from '../lib/errors.ts';
import { parseJson } from '../lib/json.ts';
import type { Log } from '../lib/log.ts';
import { userOwner, type Owner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import { createClaimsStore, type ClaimName } from './claims-store.ts';

export { markCreated } from './claims-store.ts';

/** A request that creates an object. */
export interface CreateRequest {
  principal: Principal;
  request: Request;
  response: Response;
  /** Parsed path parameters and body: what a repeat must have in common. */
  input: unknown;
}

/** How the object of a request is created. */
export interface Creation<Result> {
  createId: () => string;
  /** Creates the object with this id. A call with the id of a stored object must not create another one. */
  create: (id: string) => Promise<Result>;
  /** The result that a repeat is answered with. Absent for a result that holds a secret: it is never stored. */
  result?: ZodType<Result>;
}

/** Requests with an `Idempotency-Key`, of which repeats create nothing. */
export interface Idempotency {
  /**
   * Creates an object once for all requests with the same key of a principal within 24 hours. Without a key it only
   * creates the object. Sets the header `idempotent-replayed` where it returns the result of an earlier request.
   * @throws AppError `validation_failed` (400) for an invalid key; `request_in_progress` (409) while another request
   *   with the key runs; `already_created` (409, with the `id` of the object) where the first result is not stored;
   *   `idempotency_key_reused` (422) for another input; `database_unavailable` (503); and what `create` throws.
   */
  createOnce<Result>(request: CreateRequest, creation: Creation<Result>): Promise<Result>;
  removeUser(userId: string): Promise<void>;
  /** Starts the deletion of old rows. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

export interface IdempotencyDeps {
  database: Database;
  keyring: Keyring;
  /** Shared by all instances of this deployment. */
  secret: string;
  log: Log;
}

const PRUNE_INTERVAL_MS = 10 * 60_000;
const RETRY_AFTER_S = '2';
/** Printable ASCII. */
const KEY = /^[\x21-\x7e]{1,255}$/;

/** An answer, with where it is stored. Fernet has no associated data. */
const StoredAnswer = z.strictObject({
  kind: z.literal('idempotent_answer'),
  owner: z.string(),
  route: z.string(),
  key_mac: z.string(),
  result: z.unknown(),
});

export function createIdempotency({ database, keyring, secret, log }: IdempotencyDeps): Idempotency {
  const store = createClaimsStore(database);
  const macKey = createSecretKey(createHmac('sha256', secret).update('idempotent-request').digest());
  const toMac = (value: unknown) => createHmac('sha256', macKey).update(JSON.stringify(value)).digest('hex');
  const pruner = createPoller('pruning idempotency keys', PRUNE_INTERVAL_MS, () => store.prune(), log);

  function encryptAnswer({ owner, route, keyMac }: ClaimName, result: unknown): string {
    const answer: z.output<typeof StoredAnswer> = {
      kind: 'idempotent_answer',
      owner,
      route,
      key_mac: keyMac,
      result,
    };
    return keyring.encrypt(JSON.stringify(answer));
  }

  /** @returns undefined when it does not decrypt, e.g. after a rotation, or was stored for another request. */
  function decryptAnswer<Result>(
    { owner, route, keyMac }: ClaimName,
    answer: string | null,
    schema: ZodType<Result> | undefined,
  ): Result | undefined {
    const plaintext = answer === null ? undefined : keyring.decrypt(answer);
    const stored = plaintext === undefined ? undefined : StoredAnswer.safeParse(parseJson(plaintext)).data;
    if (stored?.owner !== owner || stored.route !== route || stored.key_mac !== keyMac) return undefined;
    return schema?.safeParse(stored.result).data;
  }

  async function runClaimed<Result>(
    name: ClaimName,
    objectId: string,
    { create, result: schema }: Creation<Result>,
  ): Promise<Result> {
    // After the end of the request, which has its own outcome.
    const settle = (settling: Promise<unknown>) =>
      settling.catch((error: unknown) => {
        log.warn(
          { err: error, owner: name.owner },
          'the outcome of an idempotent request could not be stored',
        );
      });
    const result = await create(objectId).catch(async (error: unknown) => {
      // A refusal has created nothing. Another failure may have: the object keeps its id.
      const isRefused = isAppError(error) && error.status < 500;
      await settle(isRefused ? store.release(name) : store.endLease(name));
      throw error;
    });
    await settle(
      store.complete(name, schema === undefined ? null : encryptAnswer(name, schema.parse(result))),
    );
    return result;
  }

  return {
    async createOnce({ principal, request, response, input }, creation) {
      const key = readKey(request);
      if (key === undefined) return creation.create(creation.createId());
      // A token must not receive what the session, or another token with other limits, has created.
      const credential = principal.token?.id ?? principal.credential;
      const name = {
        owner: userOwner(principal.user.id),
        route: `${request.method} ${(request.route as { path: string }).path}`,
        keyMac: toMac([principal.user.id, credential, key]),
      };
      const state = await store.claim(name, toMac(input), creation.createId());
      if (state.kind === 'claimed') return runClaimed(name, state.objectId, creation);
      if (state.kind === 'other_input') throw keyReused();
      if (state.kind === 'running') throw requestInProgress();
      const result = decryptAnswer(name, state.answer, creation.result);
      if (result === undefined) throw alreadyCreated(state.objectId);
      response.setHeader('idempotent-replayed', 'true');
      return result;
    },
    removeUser: (userId) => store.removeAll(userOwner(userId)),
    start: () => pruner.start(),
    stop: () => pruner.stop(),
  };
}

/** The stored keys of all owners, for commands. */
export function createIdempotencyData(database: Database): {
  listOwners(): Promise<Owner[]>;
  removeAll(owner: Owner): Promise<void>;
} {
  const store = createClaimsStore(database);
  return { listOwners: () => store.listOwners(), removeAll: (owner) => store.removeAll(owner) };
}

function readKey(request: Request): string | undefined {
  const key = request.get('idempotency-key');
  if (key === undefined || KEY.test(key)) return key;
  throw new AppError('validation_failed', 'Idempotency-Key must be 1 to 255 printable ASCII characters.');
}

function keyReused(): AppError {
  return new AppError(
    'idempotency_key_reused',
    'This Idempotency-Key was used for another request. Send a new key with each new request.',
  );
}

function requestInProgress(): AppError {
  const detail = 'The first request with this Idempotency-Key is still running. Try again shortly.';
  return new AppError('request_in_progress', detail, { headers: { 'retry-after': RETRY_AFTER_S } });
}

function alreadyCreated(id: string): AppError {
  return new AppError(
    'already_created',
    'The first request with this Idempotency-Key has created the object named by id. Its answer cannot be sent again.',
    { extra: { id } },
  );
}
