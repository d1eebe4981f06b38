import { isKeyAllowed, type Principal } from '../http/principal.ts';
import { assertNoIfMatch } from '../http/versions.ts';
import { AppError } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import { userOwner } from '../lib/owner.ts';
import { beginKeyTest } from './begin-key-test.ts';
import type { KeyTestResult } from './call-provider.ts';
import type { KeyDeps } from './deps.ts';
import { describeKeyForm, findFormatError, getProvider, type CheckedEndpoint } from './key-input.ts';
import { readKeyView, toKeyTested } from './key-view.ts';
import { createAddEdit, isSameContent, type KeyInput, type PoolEdit } from './pool-edit.ts';
import { changePool, readStoredPool, type PoolWrite } from './pool-writer.ts';
import type { AddKey, KeyAdded, KeyTestStatus } from './schema.ts';
import { keyNotFound } from './stored-key.ts';

/** Results with which a key is stored when the user asked for the test. */
const WORKING: ReadonlySet<KeyTestStatus> = new Set(['valid', 'unverified']);
/** Results by which a provider shows that it knows a key of another form than the documented one. */
const RECOGNIZED: ReadonlySet<KeyTestStatus> = new Set(['valid', 'no_credit', 'rate_limited', 'forbidden']);

type AddWrite = PoolWrite & PoolEdit;

export interface AddRequest {
  requestId: string;
  /** The `If-Match` header: for a replacement only. */
  ifMatch?: string | undefined;
  /** Of a new key; random by default. */
  id?: string;
}

/**
 * Encrypts and stores a key, or with `key_id` replaces one in place: id, position and creation date stay.
 * With `validate` the key is tested first, and not stored when it does not work. A key that does not have the form of
 * the provider's keys is always tested, and stored when the provider recognizes it.
 * @throws AppError `unknown_provider`, `key_not_found` (404); `scope_required` (403) for a token that is limited to
 *   other keys; `invalid_key_format`, `wrong_provider_key`,
 *   `key_too_long`, `endpoint_forbidden`, `validation_failed` (400); `duplicate_key`, `pool_full` (409);
 *   `version_mismatch` (412); `key_test_failed` (422); `key_undecryptable` (424) when the stored key is kept and does not decrypt;
 *   `rate_limited` (429); `busy`, `keycloak_unavailable`, `database_unavailable` (503).
 */
export async function addKey(
  deps: KeyDeps,
  principal: Principal,
  body: AddKey,
  { requestId, ifMatch, id = randomId() }: AddRequest,
): Promise<KeyAdded> {
  if (body.key_id === undefined)
    assertNoIfMatch(
      ifMatch,
      'If-Match needs key_id: a new key has no version yet. Send one without the other.',
    );
  if (body.key_id === undefined) assertMayAddKey(principal);
  const checked = await checkInput(deps, principal, body, { ifMatch, id });
  const { input, formatError } = checked;
  const { owner, provider, isReplacement } = input;
  const tested =
    body.validate || formatError !== undefined
      ? await testBeforeStoring(deps, principal, checked, requestId)
      : undefined;
  const change = { owner, ownerName: principal.user.username, provider: provider.id, requestId };
  const action = isReplacement ? 'key.replaced' : 'key.added';
  const { value } = await changePool<AddWrite>(deps, { ...change, action }, (pool, overwritten) => {
    const edit = createAddEdit(deps.keyring, input, pool, overwritten);
    if (tested && !isSameContent(tested.edit, edit)) throw changedDuringTest();
    return { ...edit, keyIds: [edit.id], status: { kind: 'reset', testResult: tested?.result } };
  });
  return {
    message: `${provider.name} key ${isReplacement ? 'replaced' : 'added'}.${describeCut(checked.endpoint)}`,
    provider: provider.id,
    provider_name: provider.name,
    key: await readKeyView(deps.database, owner, provider, value),
  };
}

/** A token that names its keys could not use the new one, but other requests would. */
function assertMayAddKey({ token }: Principal): void {
  if ((token?.keyIds ?? null) === null) return;
  throw new AppError(
    'scope_required',
    'This token is limited to some keys and adds no others. Sign in and use the session.',
  );
}

interface CheckedInput {
  input: KeyInput;
  /** Set when the key does not have the known form; then the provider's answer decides. */
  formatError: AppError | undefined;
  /** Undefined where a replacement keeps the stored endpoint. */
  endpoint: CheckedEndpoint | undefined;
}

async function checkInput(
  deps: KeyDeps,
  { user, token }: Principal,
  body: AddKey,
  { ifMatch, id }: { ifMatch: string | undefined; id: string },
): Promise<CheckedInput> {
  const provider = getProvider(deps.providers, body.provider);
  if (body.key_id !== undefined && !isKeyAllowed(token, body.key_id)) throw keyNotFound(provider);
  const isReplacement = body.key_id !== undefined;
  // An empty key in a replacement keeps the stored key.
  const keepsKey = body.key === '' && isReplacement && !provider.requiresKey;
  const formatError = keepsKey ? undefined : findFormatError(provider, body.key, deps.providers);
  const keepsEndpoint = isReplacement && body.endpoint === undefined && provider.requiresEndpoint;
  const endpoint = keepsEndpoint
    ? undefined
    : await deps.checkEndpoint(user.id, provider, body.endpoint ?? null);
  const input: KeyInput = {
    owner: userOwner(user.id),
    provider,
    id: body.key_id ?? id,
    isReplacement,
    key: body.key,
    label: body.label,
    endpoint: endpoint?.url,
    expiresAt: body.expires_at,
    ifMatch,
  };
  return { input, formatError, endpoint };
}

/** Completes the message of the answer where the stored endpoint is not the one that was sent. */
function describeCut(endpoint: CheckedEndpoint | undefined): string {
  if (endpoint === undefined || endpoint.removedEnd === null) return '';
  return ` The endpoint is stored as ${endpoint.url}, without ${endpoint.removedEnd}: calls append their own path.`;
}

/** Tests a key before it is stored. Errors of the change itself come first, since a test may cost money. */
async function testBeforeStoring(
  deps: KeyDeps,
  { user }: Principal,
  { input, formatError }: CheckedInput,
  requestId: string,
): Promise<{ edit: PoolEdit; result: KeyTestResult }> {
  const { owner, provider } = input;
  const edit = createAddEdit(deps.keyring, input, await readStoredPool(deps, owner, provider.id));
  await beginKeyTest(deps, user.id, { provider: provider.id, id: edit.id }, requestId);
  const result = await deps.callProvider({ userId: user.id, provider, ...edit.content });
  const fields = { user: user.id, provider: provider.id, key_id: edit.id, status: result.status };
  deps.log.info({ event: 'key_tested', ...fields }, 'a key was tested before it is stored');
  if (formatError !== undefined) {
    if (!RECOGNIZED.has(result.status)) throw unrecognizedKey(formatError, result);
    const form = describeKeyForm(provider, input.key);
    deps.log.warn(
      { event: 'key_form_unknown', ...fields, form },
      'the provider knows a key of an unknown form',
    );
    return { edit, result };
  }
  if (WORKING.has(result.status)) return { edit, result };
  throw new AppError('key_test_failed', `${result.message} Nothing was stored.`, {
    extra: { test: toKeyTested(provider.id, edit.id, result) },
  });
}

/** The refusal of a key by its form, with the reason why the provider's answer does not prove it. */
function unrecognizedKey({ code, detail }: AppError, { message }: KeyTestResult): AppError {
  return new AppError(code, `${detail} ${message}`);
}

function changedDuringTest(): AppError {
  return new AppError('busy', 'The stored key was changed while this one was tested. Try again.', {
    headers: { 'retry-after': '1' },
  });
}
