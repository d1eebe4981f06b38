import { isKeyAllowed, type Principal } from '../http/principal.ts';
import { userOwner } from '../lib/owner.ts';
import { beginKeyTest } from './begin-key-test.ts';
import type { KeyTestResult } from './call-provider.ts';
import type { KeyDeps } from './deps.ts';
import { getProvider } from './key-input.ts';
import { writeTestResult } from './key-status-store.ts';
import { toKeyTested, type KeyWithStatus } from './key-view.ts';
import type { KeysTested, KeyTested, KeyTestStatus } from './schema.ts';
import { decryptKey, keyNotFound } from './stored-key.ts';

/** From the most to the least severe. */
const WORST_FIRST: readonly KeyTestStatus[] = [
  'undecryptable',
  'invalid',
  'no_credit',
  'forbidden',
  'error',
  'unreachable',
  'timeout',
  'rate_limited',
  'untested',
  'unverified',
  'valid',
];

const UNDECRYPTABLE_RESULT: KeyTestResult = {
  status: 'undecryptable',
  message: 'It cannot be decrypted. Replace it with the key itself.',
  details: { latencyMs: null, httpStatus: null, billed: false },
};

/**
 * Tests one key, or without `keyId` all of the provider's, and stores the results.
 * @throws AppError `unknown_provider`, `key_not_found` (404), `rate_limited` (429),
 *   `keycloak_unavailable`, `database_unavailable` (503).
 */
export async function testKeys(
  deps: KeyDeps,
  { user, token }: Principal,
  providerId: string,
  keyId: string | undefined,
  requestId: string,
): Promise<KeysTested> {
  const provider = getProvider(deps.providers, providerId);
  const owner = userOwner(user.id);
  const keys = (await deps.reader.readKeys(owner)).filter(
    ({ provider: of, stored }) =>
      of === provider && (keyId === undefined || stored.id === keyId) && isKeyAllowed(token, stored.id),
  );
  if (keys.length === 0) throw keyNotFound(provider);
  // Waits for all tests, so that the other results are stored when one fails.
  const settled = await Promise.allSettled(
    keys.map(async (key) => {
      await beginKeyTest(deps, user.id, { provider: provider.id, id: key.stored.id }, requestId);
      return testStoredKey(deps, user.id, key);
    }),
  );
  const results = settled.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  });
  const worstResult = WORST_FIRST.flatMap((status) =>
    results.filter((result) => result.status === status),
  )[0];
  if (worstResult === undefined) throw new Error('no test has a status');
  return { ...worstResult, results };
}

async function testStoredKey(
  { reader, database, keyring, callProvider, log }: KeyDeps,
  userId: string,
  { provider, stored }: KeyWithStatus,
): Promise<KeyTested> {
  const owner = userOwner(userId);
  const decrypted = decryptKey(keyring, { owner, provider: provider.id }, stored);
  const result =
    decrypted === undefined ? UNDECRYPTABLE_RESULT : await callProvider({ userId, provider, ...decrypted });
  const fields = { user: userId, provider: provider.id, key_id: stored.id, status: result.status };
  log.info({ event: 'key_tested', ...fields }, 'a stored key was tested');
  // The result does not apply to a key that was replaced meanwhile.
  const current = await reader.readKeys(owner);
  if (current.some((key) => key.stored.id === stored.id && key.stored.token === stored.token)) {
    await database.withOwner(owner, (sql) => writeTestResult(sql, [owner, provider.id, stored.id], result));
    // A key in cooldown that works is used again at once.
    reader.invalidate(owner);
  }
  return toKeyTested(provider.id, stored.id, result);
}
