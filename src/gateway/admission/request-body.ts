import { parseJsonBody, type JsonBody } from '../../http/json-body.ts';
import { AppError } from '../../lib/errors.ts';
import { findTopLevelMembers, removeTopLevelMembers, type JsonObjectMembers } from '../../lib/json.ts';
import { findHiddenCharacter } from '../../lib/visible-text.ts';
import type { StreamProgress, Surface } from '../surface.ts';
import { isSteeringField } from './steering-fields.ts';

const MAX_MODEL_LENGTH = 256;

/**
 * The body of a request that names a model. Its bytes are kept, and its value until the payer is known: a parsed body
 * takes many times its bytes, and a request waits for the upstream and for the client.
 */
export interface RequestBody {
  /** As the client sent it; undefined when it is missing. */
  model: string | undefined;
  isStreaming: boolean;
  /** Follows one stream of the answer. */
  createProgress: () => StreamProgress;
  /** The stored response that the request continues; undefined when there is none. */
  previousResponseId: string | undefined;
  /** True when the provider stores the response. */
  isResponseStored: boolean;
  /** Names of all top-level fields. */
  fieldNames: readonly string[];
  /** See `JsonBody`. */
  memberCount: number;
  /**
   * The parsed body, for a check of its values where a shared key (the system default) pays. It can be taken once, before
   * `withModel`. Do not keep it across an `await`.
   */
  takeValue(): Readonly<Record<string, unknown>>;
  /**
   * The body with `model` replaced in place, or inserted first when it was missing. All other bytes are unchanged.
   * The received body and its value are released by this call, so that only one copy exists.
   */
  withModel(model: string): Buffer;
  /**
   * Changes the bytes, but none of the fields that the gateway reads. The received body is released by this call.
   * @param change returns the same bytes to change nothing.
   * @returns false when nothing was changed.
   */
  edit(change: (bytes: Buffer) => Buffer): boolean;
  /** The body without these top-level fields, none of which is interpreted. The received body is released by this call. */
  withoutFields(names: readonly string[]): RequestBody;
  /** The body with `store: false` in place of its own value, if any. The received body is released by this call. */
  withoutStoring(): RequestBody;
  /** The size of the body as it would be sent now. */
  byteLength(): number;
  /** Releases the body after it was sent for the last time. */
  release(): void;
}

/** What a surface says of its requests. */
type RequestReader = Pick<
  Surface,
  'interpretedFields' | 'prepareProgress' | 'storedResponses' | 'hasNoStreams'
>;

/**
 * @throws AppError `validation_failed` (no body, not a JSON object in UTF-8, a field of the wrong type, a model name that is
 *   too long or has control or invisible characters), `ambiguous_field` (an interpreted field twice or in another spelling).
 */
export function parseRequestBody(body: JsonBody, surface: RequestReader): RequestBody {
  const { bytes, memberCount } = body;
  if (bytes.length === 0)
    throw new AppError('validation_failed', 'The request has no body. Send a JSON object.');
  const value = parseObject(body);
  const found = findTopLevelMembers(bytes);
  const fieldNames = found.members.map((member) => member.name);
  refuseAmbiguousFields(fieldNames, surface.interpretedFields);
  const isStreaming = (surface.hasNoStreams !== true && value['stream']) ?? false;
  if (typeof isStreaming !== 'boolean') throw wrongFieldType('stream', 'true or false');
  return createRequestBody(
    {
      model: readModel(value['model']),
      isStreaming,
      createProgress: surface.prepareProgress(value),
      previousResponseId: surface.storedResponses?.findPrevious(value),
      isResponseStored: surface.storedResponses?.isStored(value) ?? false,
      fieldNames,
      memberCount,
    },
    { bytes, ...findModelSpan(found) },
    value,
  );
}

type BodyFacts = Pick<
  RequestBody,
  | 'model'
  | 'isStreaming'
  | 'createProgress'
  | 'previousResponseId'
  | 'isResponseStored'
  | 'fieldNames'
  | 'memberCount'
>;

/** Where the model's value is, and the text to add around the value when the member was missing. */
interface ModelSpan {
  start: number;
  end: number;
  prefix: string;
  suffix: string;
}

function findModelSpan({ members, afterBrace }: JsonObjectMembers): ModelSpan {
  const member = members.find(({ name }) => name === 'model');
  if (member !== undefined) return { start: member.valueStart, end: member.valueEnd, prefix: '', suffix: '' };
  const suffix = members.length > 0 ? ',' : '';
  return { start: afterBrace, end: afterBrace, prefix: '"model":', suffix };
}

/** Holds the bytes of the body, first as received, then with the model of the last `withModel` call; and its value. */
function createRequestBody(
  facts: BodyFacts,
  received: ModelSpan & { bytes: Buffer },
  receivedValue: Readonly<Record<string, unknown>> | undefined,
): RequestBody {
  let current: (ModelSpan & { bytes: Buffer }) | undefined = received;
  let value = receivedValue;
  function getCurrent(): ModelSpan & { bytes: Buffer } {
    if (current === undefined) throw new Error('the body was used after it was released');
    return current;
  }
  function release(): void {
    current = undefined;
    value = undefined;
  }
  return {
    ...facts,
    takeValue() {
      const taken = value;
      if (taken === undefined) throw new Error('the value of the body was used after it was released');
      value = undefined;
      return taken;
    },
    withModel(model) {
      value = undefined;
      const { bytes, start, end, prefix, suffix } = getCurrent();
      const member = Buffer.from(prefix + JSON.stringify(model) + suffix);
      // Usually the model is already the right one, and copying 32 MB is expensive.
      if (!bytes.subarray(start, end).equals(member)) {
        const whole = [bytes.subarray(0, start), member, bytes.subarray(end)];
        current = { ...getCurrent(), bytes: Buffer.concat(whole), end: start + member.length };
      }
      return getCurrent().bytes;
    },
    edit(change) {
      const { bytes: before } = getCurrent();
      const bytes = change(before);
      if (bytes === before) return false;
      current = { bytes, ...findModelSpan(findTopLevelMembers(bytes)) };
      return true;
    },
    withoutFields(names) {
      const bytes = removeTopLevelMembers(getCurrent().bytes, names);
      release();
      return createChangedBody(facts, bytes);
    },
    withoutStoring() {
      const bytes = removeTopLevelMembers(getCurrent().bytes, ['store']);
      release();
      const { members, afterBrace } = findTopLevelMembers(bytes);
      const member = Buffer.from(members.length > 0 ? '"store":false,' : '"store":false');
      const changed = Buffer.concat([bytes.subarray(0, afterBrace), member, bytes.subarray(afterBrace)]);
      return createChangedBody({ ...facts, isResponseStored: false }, changed);
    },
    byteLength: () => getCurrent().bytes.length,
    release,
  };
}

function createChangedBody(facts: BodyFacts, bytes: Buffer): RequestBody {
  const found = findTopLevelMembers(bytes);
  const fieldNames = found.members.map((member) => member.name);
  return createRequestBody({ ...facts, fieldNames }, { bytes, ...findModelSpan(found) }, undefined);
}

function readModel(value: unknown): string | undefined {
  const model = value ?? undefined;
  if (model === undefined) return undefined;
  if (typeof model !== 'string') throw wrongFieldType('model', 'a string');
  if (model.length > MAX_MODEL_LENGTH)
    throw wrongFieldType('model', `at most ${MAX_MODEL_LENGTH} characters`);
  // Such characters could forge log lines and terminal output.
  const hidden = findHiddenCharacter(model);
  if (hidden !== undefined)
    throw wrongFieldType('model', `free of control and invisible characters such as ${hidden}`);
  return model;
}

function parseObject(body: JsonBody): Record<string, unknown> {
  const value = parseJsonBody(body);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new AppError('validation_failed', 'The body must be a JSON object.');
  }
  return value as Record<string, unknown>;
}

function refuseAmbiguousFields(names: readonly string[], interpretedFields: readonly string[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    const folded = foldName(name);
    const interpreted = interpretedFields.find((field) => field === folded);
    if (interpreted === undefined) continue;
    if (interpreted !== name || seen.has(interpreted)) {
      throw new AppError(
        'ambiguous_field',
        `Send the field "${interpreted}" once only, in exactly this spelling.`,
        {
          errors: [{ path: interpreted, message: 'occurs twice or in another letter case' }],
        },
      );
    }
    seen.add(interpreted);
  }
}

/**
 * Checks a body that a user's own key pays for. All fields are allowed, except steering fields when the operator set
 * the upstream's address, which may be a proxy with its own keys.
 * @throws AppError `field_not_allowed` naming the field.
 */
export function checkPersonalKeyBody(body: RequestBody, isOperatorAddress: boolean): void {
  if (!isOperatorAddress) return;
  for (const name of body.fieldNames) {
    if (isSteeringField(foldName(name))) throw fieldNotAllowed(name);
  }
}

/** A body as a shared payer sends it. */
export interface AdmittedBody {
  body: RequestBody;
  /** Names of the fields that were left out, in the order of the body. */
  dropped: readonly string[];
  /** True when the request did not say whether the response is stored, and the gateway refused it. */
  isStoringRefused: boolean;
}

/**
 * Checks a body that a shared payer (organization or system) pays for: known fields only, no references to objects
 * stored on the shared account, no hosted tools. Fields that can neither cost nor steer are left out; the received body
 * is released then.
 * @param extraFields fields that the operator also allows, and which are passed. Steering fields stay refused.
 * @throws AppError `field_not_allowed` naming the field; `ambiguous_field`; `validation_failed`.
 */
export function admitSharedPayerBody(
  body: RequestBody,
  surface: Surface,
  extraFields: readonly string[],
): AdmittedBody {
  const value = body.takeValue();
  const dropped = body.fieldNames.filter((name) => {
    if (isSteeringField(foldName(name))) throw fieldNotAllowed(name);
    if (surface.sharedPayerFields.has(name) || extraFields.includes(name)) return false;
    if (surface.droppedFields.get(name)?.(value[name]) !== true) throw fieldNotAllowed(name);
    return true;
  });
  // A parser hides all but one of several members of a name, and the upstream could read another one.
  if (surface.checkSharedPayerValues(value) !== body.memberCount) {
    throw new AppError(
      'ambiguous_field',
      'An object in the body has two members with the same name. Send each member once.',
    );
  }
  const isStoringRefused = surface.storedResponses?.isStored(value) === true;
  const kept = dropped.length === 0 ? body : body.withoutFields(dropped);
  return { body: isStoringRefused ? kept.withoutStoring() : kept, dropped, isStoringRefused };
}

/**
 * Folds a field name as the laxest parsers do. Go's `encoding/json` and .NET ignore letter case; Go also matches `ſ`
 * (U+017F) with `s` and the Kelvin sign (U+212A) with `k`, by Unicode simple case folding.
 */
export function foldName(name: string): string {
  return name.toUpperCase().toLowerCase();
}

/** 400 for a field of the wrong type. @param expected completes the sentence "must be ...". */
export function wrongFieldType(field: string, expected: string): AppError {
  return new AppError('validation_failed', `The field "${field}" must be ${expected}.`, {
    errors: [{ path: field, message: `must be ${expected}` }],
  });
}

/** 400 for a field that the payer or the address of a request does not allow. */
export function fieldNotAllowed(field: string): AppError {
  // The name is client input: it is shortened and quoted as JSON, so that it cannot imitate our text.
  const shown = JSON.stringify(field.slice(0, 64));
  return new AppError('field_not_allowed', `The field ${shown} is not allowed for this payer and address.`, {
    errors: [{ path: field.slice(0, 64), message: 'is not allowed here' }],
  });
}
